"""The command line on models of real size with random weights, on this machine: seconds and peak memory, for docs/real-size.md.

python -m benchmarks.real_size FOLDER [--tiny] [--only STAGE,...]

Writes Stable Diffusion 1.5 (fp16 files), CLIP ViT-L/14, a tiny Q-ALIGN and random JPEGs into FOLDER, and drives profile in100 through
them with small counts. ``--tiny`` does the same with small networks, in minutes. The published weights are not loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLASSES = ("n01558993", "n01692333")
"""Two classes of ImageNet-100."""
PROBE = "dtd"
PX = 64
"""Side of the inputs of pre-training and of the probe; the full profile has 224, at twelve times the work."""
SIDE, FIT_SIDE = 256, 128
"""Side of the images of sd15, and of lbgen with its fit, in pixels; the networks' parameters do not depend on it."""


@dataclass(frozen=True)
class Stage:
    """One command and what it cost."""

    name: str
    words: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Cost of a stage: wall and processor seconds, and the peak resident memory of its largest process in GiB."""

    stage: Stage
    seconds: float
    cpu_seconds: float
    peak_gib: float
    code: int


def stages(folder: Path, tiny: bool) -> list[Stage]:
    """Return what is done, in order."""
    arguments = ["--tiny"] if tiny else []
    inner = (sys.executable, "-m", "benchmarks.real_size")
    backbones = ("resnet18", "vit_tiny_patch16_224") if tiny else ("resnet50", "vit_small_patch16_224")
    images = ("--generator", "sd15,lbgen")
    pictures = 24 if tiny else 1000
    found = [
        Stage("write", "random weights and pictures are written", (*inner, "--write", str(folder), *arguments)),
        Stage("doctor", "all files are inspected", harness(folder, tiny, "doctor")),
        Stage(
            "plan", "the cells of all that follows", harness(folder, tiny, "plan", *images, "--suite", "linear-probe")
        ),
        Stage(
            "sd15",
            f"2 images of {SIDE} px, 1 step (PNDM: 2 calls of the UNet)",
            harness(folder, tiny, "run", "--generator", "sd15", "--suite", ""),
        ),
        Stage(
            "lbgen",
            f"1 warm-up of 2 images, 2 LoRA updates of 1 (2 steps, 1 trained; Q-ALIGN tiny), 2 images in 1 step; {FIT_SIDE} px",
            harness(folder, tiny, "run", "--generator", "lbgen", "--suite", "", px=FIT_SIDE),
        ),
        Stage("stock", "the LoRA in a stock diffusers pipeline, 1 image", (*inner, "--stock", str(folder), *arguments)),
    ]
    for name in backbones:
        words = f"{name}: {pictures} pictures, 1 epoch, {PX} px"
        command = ("run", "--generator", "real", "--backbone", name, "--suite", "")
        found.append(Stage(name, words, harness(folder, tiny, *command, train=pictures // len(CLASSES), backbone=name)))
    found.append(
        Stage(
            "probe",
            f"{backbones[0]}: features of {PROBE} (embedded, 816 images) at {PX} px, linear probe",
            harness(
                folder, tiny, "run", "--generator", "real", "--backbone", backbones[0], "--suite", "linear-probe",
                train=pictures // len(CLASSES), backbone=backbones[0],
            ),
        )
    )  # fmt: skip
    return found


def harness(
    folder: Path, tiny: bool, command: str, *options: str, train: int = 1, backbone: str = "", px: int = SIDE
) -> tuple[str, ...]:
    """Return a command of the product with profile in100 cut to small counts.

    Args:
        folder: Where models and pictures are.
        tiny: Whether the networks are small.
        command: ``doctor``, ``plan`` or ``run``.
        options: Its options.
        train: Images of each class.
        backbone: What is trained; by default a small network on the few images that were made.
        px: Side of the images that are made, in pixels.
    """
    backbone = backbone or "resnet18"
    batch = 2 if train < 10 else 12 if tiny else 50
    values = {
        "classes": folder / "classes.txt",
        "dataset.images_per_class": train,
        "dataset.chunk": 2,
        "dataset.size_px": px,
        "generators.sd15.base": folder / "sd",
        "generators.sd15.sampling_steps": 1,
        "generators.lbgen.base": folder / "sd-fit",
        "generators.lbgen.sampling_steps": 1,
        "generators.lbgen.clip": folder / "clip",
        "generators.lbgen.quality": f"q-align:{folder / 'q-align'}",
        "generators.lbgen.fit_classes": folder / "classes.txt",
        "generators.lbgen.steps": 2,
        "generators.lbgen.trained_steps": 1,
        "generators.lbgen.epochs": 1,
        "generators.lbgen.batch": 1,
        "generators.lbgen.micro_batch": 1,
        "generators.lbgen.rank": 4 if tiny else 128,
        f"backbones.{backbone}.epochs": 1,
        f"backbones.{backbone}.warmup_epochs": 0,
        f"backbones.{backbone}.batch_size": batch,
        f"backbones.{backbone}.image_size": PX,
        "suites.linear-probe.datasets": f'["{PROBE}"]',
        "suites.linear-probe.probe_seeds": 1,
        "suites.linear-probe.image_size": PX,
        "suites.linear-probe.threads": 1,
        f"data.{PROBE}.writer": "harness.microworld.datasets:write",
        f"data.{PROBE}.identity": "harness.microworld.datasets:identity",
        f"data.{PROBE}.card": "package:harness.microworld/cards/dtd.json",
    }
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    if command == "run":
        options = (*options, "--slots", "1", "--quiet")
    if command != "doctor" and "--backbone" not in options:
        options = (*options, "--backbone", backbone)
    place = ("--profile", "in100", "--store", str(folder / "store"), "--data", f"train={folder / 'train'}")
    return (sys.executable, "-m", "harness", command, *options, *place, *sets)


def measure(stage: Stage, log: Path) -> Measured:
    """Run one stage in a process of its own; its output goes to the log."""
    start = time.monotonic()
    with log.open("a", encoding="utf-8") as out:
        out.write(f"\n== {stage.name}: {' '.join(stage.command)}\n")
        out.flush()
        process = subprocess.Popen(stage.command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(stage, time.monotonic() - start, cpu, usage.ru_maxrss / 2**20, os.waitstatus_to_exitcode(status))


def table(rows: Sequence[Measured]) -> str:
    """Return the table of the page."""
    lines = ["| stage | what | seconds | CPU seconds | peak GiB |", "|---|---|---:|---:|---:|"]
    for row in rows:
        numbers = f"{row.seconds:.0f} | {row.cpu_seconds:.0f} | {row.peak_gib:.1f}"
        lines.append(f"| {row.stage.name} | {row.stage.words} | {numbers} |")
    return "\n".join(lines)


def cell_table(store: Path) -> str:
    """Return what each finished cell took, from the manifests of the store."""
    lines = ["| cell | seconds | CPU seconds |", "|---|---:|---:|"]
    for path in sorted(store.glob("*/*/manifest.json"), key=lambda each: each.stat().st_mtime):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        numbers = f"{manifest.get('wall_seconds', 0):.0f} | {manifest.get('cpu_seconds', 0):.0f}"
        lines.append(f"| {path.parent.parent.name} {manifest['spec']['name']} | {numbers} |")
    return "\n".join(lines)


# --- what the stages read


def write_models(folder: Path, tiny: bool) -> None:
    """Write the models and pictures; random weights of fixed seeds, nothing is downloaded."""
    import torch

    torch.manual_seed(0)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    write_pictures(folder / "train", 12 if tiny else 500)
    write_pipeline(folder / "sd", tiny)
    write_smaller(folder / "sd", folder / "sd-fit")
    write_clip(folder / "clip", tiny)
    from tests.generators.test_qalign_scorer import tiny_state, write_folder

    write_folder(folder / "q-align", tiny_state())


def write_pictures(root: Path, per_class: int) -> None:
    """Write random JPEGs of 500 x 375 pixels in class folders."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            coarse.resize((500, 375)).save(root / name / f"{name}_{index}.JPEG", quality=90)


def write_pipeline(folder: Path, tiny: bool) -> None:
    """Write a Stable Diffusion 1.5 folder, in fp16 files; ``sample_size`` alone differs, for the smaller images."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from generators.diffusion.base import PACKAGED
    from generators.diffusion.single_file import clip_tokenizer

    unet, vae, text = (
        json.loads((PACKAGED / name / "config.json").read_text()) for name in ("unet", "vae", "text_encoder")
    )
    unet["sample_size"] = SIDE // 8
    if tiny:
        unet |= {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 64, "layers_per_block": 1}
        vae |= {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1}
        text |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    networks = (
        UNet2DConditionModel.from_config(unet),
        AutoencoderKL.from_config(vae),
        CLIPTextModel(CLIPTextConfig(**text)),
    )
    for name, network in zip(("UNet", "autoencoder", "text encoder"), networks, strict=True):
        print(f"{name}: {sum(each.numel() for each in network.parameters()):,} parameters")
    made: Any = [network.half() for network in networks]
    scheduler = PNDMScheduler.from_pretrained(PACKAGED / "scheduler")
    StableDiffusionPipeline(
        made[1], made[2], clip_tokenizer(), made[0], scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(folder, variant="fp16")


def write_smaller(folder: Path, out: Path) -> None:
    """Write the same pipeline for smaller images: links to its files, and a UNet with another ``sample_size``."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    config = out / "unet" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    config.unlink()
    config.write_text(json.dumps(values | {"sample_size": FIT_SIDE // 8}), encoding="utf-8")


def write_clip(folder: Path, tiny: bool) -> None:
    """Write CLIP ViT-L/14 as an open_clip folder."""
    import open_clip
    from safetensors.torch import save_file

    config = open_clip.get_model_config("ViT-L-14-quickgelu")
    if tiny:
        config = {**config, "embed_dim": 32}
        config["vision_cfg"] = {**config["vision_cfg"], "layers": 2, "width": 64, "head_width": 32}
        config["text_cfg"] = {**config["text_cfg"], "layers": 2, "width": 64, "heads": 2}
    model = open_clip.CLIP(**config)
    print(f"CLIP: {sum(each.numel() for each in model.parameters()):,} parameters")
    folder.mkdir(parents=True)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    preprocess = {
        "size": 224,
        "mode": "RGB",
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    state = {name: each.half().contiguous() for name, each in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")


def stock_pipeline(folder: Path) -> None:
    """Load the fitted LoRA into diffusers' own pipeline and make one image; it must differ from the base model's.

    Raises:
        SystemExit: it does not.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    (file,) = (folder / "store" / "fit").glob("*/pytorch_lora_weights.safetensors")
    pipe = StableDiffusionPipeline.from_pretrained(
        folder / "sd-fit", variant="fp16", torch_dtype=torch.float32, safety_checker=None
    )
    settings = {
        "height": FIT_SIDE,
        "width": FIT_SIDE,
        "num_inference_steps": 1,
        "guidance_scale": 2.0,
        "output_type": "np",
    }

    def image() -> Any:
        return pipe("lizard", generator=torch.Generator().manual_seed(0), **settings).images[0]

    before = image()
    pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    change = float(abs(image() - before).max())
    print(f"the LoRA changes the image by at most {change:.2e}; adapters: {pipe.get_active_adapters()}")
    if not change:
        sys.exit("the LoRA has no effect")


def main(arguments: list[str]) -> None:
    """Run the stages, or what two of them consist of."""
    tiny = "--tiny" in arguments
    only = arguments[arguments.index("--only") + 1].split(",") if "--only" in arguments else []
    places = [each for each in arguments if not each.startswith("--") and each.split(",") != only]
    if len(places) != 1:
        sys.exit(__doc__)
    folder = Path(places[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if "--write" in arguments:
        return write_models(folder, tiny)
    if "--stock" in arguments:
        return stock_pipeline(folder)
    rows = []
    for stage in stages(folder, tiny):
        if not only or stage.name in only:
            rows.append(measure(stage, folder / "log.txt"))
            print(
                f"{stage.name}: {rows[-1].seconds:.0f} s, {rows[-1].peak_gib:.1f} GiB, exit code {rows[-1].code}",
                flush=True,
            )
    print(f"\n{table(rows)}\n\n{cell_table(folder / 'store')}")
    if any(row.code for row in rows):
        sys.exit(f"a stage failed, see {folder / 'log.txt'}")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
