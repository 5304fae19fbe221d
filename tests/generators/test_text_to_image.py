"""``diffusers:SOURCE`` on tiny random pipelines of four families: images depend on seeds alone, and what cannot be loaded is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generators.diffusion.auto import inspect_pipeline, text_to_image_classes
from generators.diffusion.text_to_image import call_arguments, draw_images, load_text_to_image, resized
from harness.cli.modelcheck import model_findings
from harness.core.errors import DataMissing, UserError
from harness.images.shards import read_rows
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.run.job import Job, execute
from harness.store.artifacts import Store
from tests.generators.pipelines import FAMILIES, write_family
from tests.generators.test_imports import CLASSES

PROFILE = """name = "toy"
classes = "{classes}"
[dataset]
images_per_class = 5
chunk = {chunk}
size_px = 16
copy_px = 16
[backbones.resnet10]
epochs = 1
warmup_epochs = 0
[generators.sd15]
base = "{base}"
sampling_steps = 4
[generators.diffusers]
sampling_steps = 4
guidance = 2.0
size = 16
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that gives the folder of a family, written once."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_family(kind, root / kind)
        return Path(made[kind])

    return folder


def plan_of(place: Path, base: Path, generators: str, sets: tuple[str, ...] = (), chunk: int = 5) -> Plan:
    place.mkdir(exist_ok=True)
    (place / "classes.txt").write_text("".join(f"{wnid} thing {i}\n" for i, wnid in enumerate(CLASSES)))
    (place / "toy.toml").write_text(PROFILE.format(classes=place / "classes.txt", chunk=chunk, base=base))
    registry.generators.cache_clear()
    return Planner(Selection(load_profile(str(place / "toy.toml"), sets).profile, generators, "")).build()


def images(place: Path, base: Path, generator: str, sets: tuple[str, ...] = (), chunk: int = 5) -> dict[str, Any]:
    """Make one dataset in this process; return the pixels of each image by its name."""
    from harness.images.shards import ShardReader

    plan = plan_of(place, base, generator, sets, chunk)
    assert not plan.not_run
    cell, store, found = next(c for c in plan.cells.values() if c.kind == "synthesise"), Store(place / "store"), {}
    for shard in (*cell.shards, ""):
        execute(Job(cell, {}, plan.sources, str(store.root), shard))
    for path in sorted((store.folder(cell) / "shards").glob("*.tar")):
        reader = ShardReader(path)
        found |= {name: reader.pixels(name) for name in reader.names}
    return found | {"rows": read_rows(store.folder(cell) / "images.jsonl")}


@pytest.mark.parametrize("kind", FAMILIES)
def test_images_of_four_families_do_not_depend_on_batch_or_order(kind: str, written: Any) -> None:
    pipeline = load_text_to_image(written(kind), torch.float32, "cpu")
    assert type(pipeline).__name__ == kind
    arguments = call_arguments(pipeline, {"num_inference_steps": 3, "height": 16, "width": 16})
    seeds = [1, 2, 3, 4]
    one = np.concatenate([draw_images(pipeline, ["cat"], [seed], 1, arguments) for seed in seeds])
    three = np.concatenate(
        [draw_images(pipeline, ["cat"] * len(part), part, 3, arguments) for part in (seeds[:3], seeds[3:])]
    )
    backwards = draw_images(pipeline, ["cat"] * 3, seeds[3:0:-1], 3, arguments)[::-1]
    assert one.shape == (4, 16, 16, 3) and one.dtype == np.uint8
    # Another batch size may change the last bits of a network's output: up to one grey level. Order and filling up may not.
    assert np.abs(one.astype(int) - three).max() <= 1
    assert (backwards[:2] == three[1:3]).all() and np.abs(backwards[2].astype(int) - three[3]).max() <= 1
    spread = np.abs(one[:, None].astype(int) - one[None]).mean(axis=(2, 3, 4))
    assert spread[~np.eye(4, dtype=bool)].min() > 10, "each seed has an image of its own"
    other = draw_images(pipeline, ["a dog"], [1], 1, arguments)
    assert (other != one[:1]).any(), "the prompt reaches the image"


def test_a_dataset_is_the_same_in_other_shards(tmp_path: Path, written: Any) -> None:
    base = written("StableDiffusionPipeline")
    sets = ("generators.diffusers.batch=3",)
    whole = images(tmp_path / "a", base, f"diffusers:{base}", sets)
    split = images(tmp_path / "b", base, f"diffusers:{base}", sets, chunk=2)
    assert len(whole) == 16 and whole.keys() == split.keys()
    for name in whole.keys() - {"rows"}:
        assert np.abs(whole[name].astype(int) - split[name]).max() <= 1
    assert [row.seed for row in whole["rows"]] == [row.seed for row in split["rows"]]
    assert {row.prompt for row in whole["rows"]} == {"thing 0", "thing 1", "thing 2"}


def test_a_stable_diffusion_draws_the_images_of_sd15_from_the_same_noise(tmp_path: Path, written: Any) -> None:
    base = written("StableDiffusionPipeline")
    ours, theirs = images(tmp_path, base, "sd15"), images(tmp_path, base, f"diffusers:{base}")
    assert [row.seed for row in ours["rows"]] == [row.seed for row in theirs["rows"]]
    gaps = [np.abs(ours[name].astype(int) - theirs[name]) for name in ours.keys() - {"rows"}]
    assert max(gap.max() for gap in gaps) <= 1, "rounding of a network in batches of 16 and 4"


def test_prompt_and_negative_prompt_are_used_and_kept(tmp_path: Path, written: Any) -> None:
    base = written("StableDiffusionPipeline")
    plain = images(tmp_path, base, f"diffusers:{base}")
    sets = ("generators.diffusers.prompt=a photo of {class_name}", "generators.diffusers.negative_prompt=dark")
    told = images(tmp_path, base, f"diffusers:other={base}", sets)
    assert told["rows"][0].prompt == "a photo of thing 0" and told["rows"][0].negative_prompt == "dark"
    names = plain.keys() - {"rows"}
    assert all((plain[name] != told[name]).any() for name in names)


def test_settings_of_one_pipeline_and_of_all(tmp_path: Path, written: Any) -> None:
    base = written("FluxPipeline")
    plan = plan_of(
        tmp_path, base, f"diffusers:one={base},diffusers:two={base}", ("generators.diffusers:two.guidance=4",)
    )
    found = {c.name: c.params["settings"]["guidance"] for c in plan.cells.values() if c.kind == "synthesise"}
    assert found == {"diffusers:one": 2.0, "diffusers:two": 4.0}
    assert {c.params["sources"]["source"] for c in plan.cells.values() if c.kind == "synthesise"} == {
        next(c.params["sources"]["source"] for c in plan.cells.values() if c.kind == "synthesise")
    }
    with pytest.raises(UserError, match="two generators are called 'diffusers:one'"):
        plan_of(tmp_path, base, f"diffusers:one={base},diffusers:one={base.parent}")


@pytest.mark.parametrize(
    ("setting", "why"),
    [("prompt=a photo", "lacks {class_name}"), ("batch=0", "greater than or equal to 1"), ("guidance=-1", "greater")],
)
def test_a_setting_that_cannot_be_meant_is_refused(tmp_path: Path, written: Any, setting: str, why: str) -> None:
    base = written("StableDiffusionPipeline")
    with pytest.raises(UserError) as caught:
        plan_of(tmp_path, base, f"diffusers:{base}", (f"generators.diffusers.{setting}",))
    assert why in f"{caught.value.what} {caught.value.why}"


def test_a_setting_that_would_have_no_effect_is_refused(written: Any) -> None:
    flux = load_text_to_image(written("FluxPipeline"), torch.float32, "cpu")
    with pytest.raises(UserError, match="FluxPipeline takes no negative_prompt"):
        call_arguments(flux, {"negative_prompt": "dark"})
    with pytest.raises(UserError, match="takes no eta"):
        call_arguments(flux, {"guidance_scale": 3.5, "eta": 0.5})
    assert call_arguments(flux, {"guidance_scale": 0, "num_inference_steps": 0, "negative_prompt": ""}) == {
        "guidance_scale": 0.0
    }


@pytest.mark.parametrize("source", ["stabilityai/sdxl", "stabilityai/sdxl@main", "hub:stabilityai/sdxl"])
def test_an_unpinned_model_of_the_hub_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(tmp_path, tmp_path, f"diffusers:{source}")
    assert "is not pinned" in caught.value.what and "other weights under the same key" in caught.value.why
    pinned = plan_of(tmp_path, tmp_path, "diffusers:stabilityai/sdxl@451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
    assert {c.name for c in pinned.cells.values() if c.kind == "synthesise"} == {"diffusers:sdxl"}


def edit_index(folder: Path, **entries: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        (lambda f: (f / "model_index.json").unlink(), "not a diffusion pipeline", "no model_index.json"),
        (lambda f: edit_index(f, _class_name="WanPipeline"), "no text-to-image pipeline", "no pipeline for WanPipeline"),
        (lambda f: edit_index(f, _class_name=["my", "Pipe"]), "code of its own", "never run"),
        (lambda f: edit_index(f, unet=["my_unet", "UNet"]), "code of its own", "takes unet from 'my_unet'"),
        (lambda f: shutil.rmtree(f / "vae"), "has no vae", "names a AutoencoderKL"),
        (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(), "no weights", "nothing else"),
        (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").rename(f / "unet/diffusion_pytorch_model.bin"),
         "pickled weights only", "may run code"),
        (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 100), "", ""),
        (lambda f: shutil.rmtree(f / "tokenizer") or (f / "tokenizer").mkdir(), "tokenizer", "none of tokenizer.json"),
    ],
)  # fmt: skip
def test_plan_doctor_and_loader_refuse_what_cannot_be_loaded(
    tmp_path: Path, written: Any, change: Any, what: str, why: str
) -> None:
    folder = Path(shutil.copytree(written("StableDiffusionPipeline"), tmp_path / "broken"))
    change(folder)
    with pytest.raises(UserError) as caught:
        inspect_pipeline(folder)
    assert what in caught.value.what and why in caught.value.why
    plan = plan_of(tmp_path / "plan", folder, f"diffusers:{folder}")
    assert not plan.cells and caught.value.what in plan.not_run[0].reason
    settings = [f"generators.diffusers.source={folder}"]
    assert any(
        caught.value.what in each.text for each in model_findings("micro", (), settings) if each.status == "problem"
    )
    with pytest.raises(UserError):
        load_text_to_image(folder, torch.float32, "cpu")


def test_a_tensor_that_is_missing_is_an_error_and_not_a_random_value(tmp_path: Path, written: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(written("FluxPipeline"), tmp_path / "flux"))
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state.pop(sorted(state)[0])
    save_file(state, path)
    with pytest.raises(UserError, match="do not fit the network"):
        load_text_to_image(folder, torch.float32, "cpu")


def test_half_precision_files_are_noted_and_read(tmp_path: Path, written: Any) -> None:
    folder = Path(shutil.copytree(written("PixArtSigmaPipeline"), tmp_path / "pixart"))
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert inspect_pipeline(folder).notes == ("fp16 weights of transformer",)
    assert load_text_to_image(folder, torch.float32, "cpu").transformer.dtype == torch.float32


def test_the_table_read_as_text_is_that_of_the_library() -> None:
    from diffusers.pipelines import auto_pipeline as auto

    known = text_to_image_classes()
    assert {*FAMILIES, "StableDiffusion3Pipeline", "StableDiffusionImg2ImgPipeline"} <= known
    assert {kind.__name__ for kind in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()} <= known
    assert "WanPipeline" not in known


def test_an_image_of_another_size_is_resized_and_one_that_is_no_square_refused() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert resized(image, 4) is image and resized(image, 2).shape == (2, 2, 3)
    with pytest.raises(UserError, match="4 x 2 px"):
        resized(image[:2], 4)


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, tmp_path, "diffusers:/nowhere/sdxl")
    assert "/nowhere/sdxl does not exist" in plan.not_run[0].reason
    with pytest.raises(DataMissing, match="not a diffusion pipeline"):
        inspect_pipeline(tmp_path)
