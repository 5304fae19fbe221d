"""RealFake against values worked out by hand: loss, weights, sampler, visual token, captions, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from generators.diffusion.cost import updates_of
from generators.diffusion.finetune import Finetune, Schedule, noise_prediction_loss, position_at
from generators.diffusion.lora_io import add_lora
from generators.diffusion.sampling import ImageStart, image_noise, sample_from_images, unipc_timesteps
from generators.realfake.captions import captioner_class, captioner_config, open_captioner
from generators.realfake.features import clip_square
from generators.realfake.losses import matching_term, min_snr_weights, realfake_loss
from generators.realfake.settings import FIT, RealFakeSettings
from generators.realfake.synthesis import Material, make_images
from generators.realfake.visual import interleaved, released_batch, with_visual_token
from harness.core.errors import DataMissing, UserError
from harness.images.request import Request


def residuals() -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions whose residuals are 0.2 and -0.1 everywhere, and the noise."""
    noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([0.2, -0.1]).view(2, 1, 1, 1)
    return (noise + shift).double(), noise.double()


def test_realfake_loss_of_residuals_set_by_hand() -> None:
    predicted, noise = residuals()
    ratios = torch.tensor([2.0, 10.0], dtype=torch.float64)  # weights 1 and 0.5
    assert float(realfake_loss(predicted, noise, ratios, matching=0)) == pytest.approx(0.0225, abs=1e-7)
    assert float(matching_term(predicted, noise, min_snr_weights(ratios))) == pytest.approx(0.0225, abs=1e-7)
    assert float(realfake_loss(predicted, noise, ratios)) == pytest.approx(0.0225675, abs=1e-7)


def test_realfake_gradient_by_hand() -> None:
    """dL/de_b = 2 w_b r_b / (B N) + 0.003 * 2 w_b S / N with S = sum_b w_b r_b = 0.15 and N pixels of an image."""
    predicted, noise = residuals()
    predicted.requires_grad_(True)
    realfake_loss(predicted, noise, torch.tensor([2.0, 10.0], dtype=torch.float64)).backward()
    assert predicted.grad is not None
    n = 36
    first = 2 * 1 * 0.2 / (2 * n) + 0.003 * 2 * 1 * 0.15 / n
    second = 2 * 0.5 * -0.1 / (2 * n) + 0.003 * 2 * 0.5 * 0.15 / n
    assert torch.allclose(predicted.grad[0], torch.tensor(first, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(predicted.grad[1], torch.tensor(second, dtype=torch.float64), atol=1e-8)


def test_the_matching_term_takes_the_sum_of_residuals_not_their_mean() -> None:
    """Eight equal residuals r: (8 r)^2, so 0.003 on the sum is 0.192 on the squared batch mean."""
    predicted, noise = torch.full((8, 4, 2, 2), 0.1), torch.zeros(8, 4, 2, 2)
    term = 0.003 * float(matching_term(predicted, noise, torch.ones(8)))
    assert term == pytest.approx(0.192 * 0.1**2, rel=1e-6)


def test_min_snr_weights_by_hand() -> None:
    weights = min_snr_weights(torch.tensor([10.0, 2.0, 5.0, 0.01, 500.0]))
    assert weights.tolist() == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.01])


class CountingUnet:
    """A stub that predicts nothing and remembers its calls."""

    config = SimpleNamespace(in_channels=4, sample_size=8)

    def __init__(self) -> None:
        self.timesteps: list[int] = []
        self.text: list[torch.Tensor] = []

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Any:
        self.timesteps.append(int(timestep))
        self.text.append(encoder_hidden_states)
        return SimpleNamespace(sample=torch.zeros_like(latents))


def test_of_thirty_scheduled_steps_twentytwo_are_executed(tiny_parts: Any) -> None:
    import dataclasses

    unet = CountingUnet()
    parts = dataclasses.replace(tiny_parts, unet=unet)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    start = ImageStart(latents, noise, 0.75)
    images = sample_from_images(
        parts, torch.zeros(2, 16, 16), torch.ones(16, 16), start, steps=30, guidance=2.0, micro_batch=2
    )
    assert images.shape == (2, 16, 16, 3) and len(unet.timesteps) == 22
    assert unet.timesteps[0] == 733 and unet.timesteps[-1] == 33, "999 * 22 / 30 and 999 / 30, rounded"
    assert all((text[:2] == 1).all() and (text[2:] == 0).all() for text in unet.text), "negative half first"
    scheduler, left = unipc_timesteps(tiny_parts, 30, 0.75)
    assert len(scheduler.timesteps) == 30 and len(left) == 22
    assert len(unipc_timesteps(tiny_parts, 30, 1.0)[1]) == 30
    noisy = scheduler.add_noise(start.latents, start.noise, left[:1].repeat(2))
    bar = scheduler.alphas_cumprod[733]
    assert torch.allclose(noisy, bar.sqrt() * start.latents + (1 - bar).sqrt() * start.noise, atol=1e-6)


def test_unipc_ends_where_it_did_when_the_images_were_made(tiny_parts: Any) -> None:
    """At the noise of time step 0, sqrt((1 - abar) / abar) with abar = 1 - 0.00085, not at zero as today's default."""
    scheduler, _ = unipc_timesteps(tiny_parts, 30, 0.75)
    assert float(scheduler.sigmas[-1]) == pytest.approx((0.00085 / 0.99915) ** 0.5, rel=1e-4)
    assert float(scheduler.sigmas[-1]) == pytest.approx(0.029, abs=5e-4) and float(scheduler.sigmas[-2]) > 0.1


def test_the_visual_token_is_the_feature_bit_for_bit() -> None:
    hidden, feature = torch.randn(3, 77, 768), torch.randn(3, 768).half()
    joined = with_visual_token(hidden, feature.float())
    assert torch.equal(joined[:, 76], feature.float()) and torch.equal(joined[:, :76], hidden[:, :76])
    assert not torch.equal(hidden[:, 76], joined[:, 76]), "the given states stay as they are"
    assert torch.equal(with_visual_token(hidden, feature.float(), 0.5)[:, 76], 0.5 * feature.float())
    with pytest.raises(UserError, match="width is 512"):
        with_visual_token(hidden, torch.zeros(3, 512))


def test_the_released_token_mixes_a_batch() -> None:
    """Against the published expression: features of a batch stacked along dimension 1, then viewed as rows."""
    features = torch.randn(24, 768, generator=torch.Generator().manual_seed(0))
    mixed = interleaved(features)
    published = torch.stack(list(features), dim=1).view(24, 1, -1)
    assert torch.equal(mixed[:, None], published)
    for row in (0, 5, 23):
        assert torch.equal(mixed[row].reshape(32, 24), features[:, 32 * row : 32 * (row + 1)].T), (
            "32 dimensions of all 24"
        )
    assert torch.equal(interleaved(features[:1]), features[:1]), "a batch of one keeps its own"
    assert [released_batch(place, 50) for place in (0, 23, 24, 49)] == [
        range(24),
        range(24),
        range(24, 48),
        range(48, 50),
    ]


@pytest.mark.parametrize("token", ["own", "released"])
def test_the_token_of_every_image_in_synthesis(tiny_parts: Any, token: str) -> None:
    """The state in the last text position, conditional half, of 30 images from 26 real ones, however they are requested."""
    import dataclasses

    from PIL import Image

    unet = CountingUnet()
    parts = dataclasses.replace(tiny_parts, unet=unet)
    features = np.random.default_rng(0).normal(size=(26, 16)).astype(np.float16)
    pictures: Any = SimpleNamespace(
        names=[f"a/{number}" for number in range(26)],
        picture=lambda position: Image.new("RGB", (16, 16), (position, 0, 0)),
    )
    rows = [{"caption": "one", "class_index": 0}] * 26
    material = Material(parts, pictures, rows, {0: range(26)}, features, 1.0)
    settings = {"strength": 0.75, "sampling_steps": 2, "guidance": 2.0, "visual_token": token}
    ctx: Any = SimpleNamespace(params={"settings": settings})

    def tokens(start: int, stop: int) -> torch.Tensor:
        unet.text.clear()
        made = list(make_images(ctx, material, Request(0, "a", "tench", start, stop, 16, 0)))
        assert [sample.parent for sample in made] == [f"a/{index % 26}" for index in range(start, stop)]
        last = [text[16:, -1] for text in unet.text]  # of 16 images together: the conditional half
        return torch.cat(last)[: stop - start]

    found = torch.cat([tokens(0, 16), tokens(16, 30)])
    own = torch.from_numpy(features.astype(np.float32))
    mixed = torch.cat([torch.stack(list(part), dim=1).view(len(part), -1) for part in (own[:24], own[24:])])
    expected = own if token == "own" else mixed
    assert torch.equal(found, torch.cat([expected, expected[:4]]))
    assert torch.equal(tokens(20, 25), found[20:25]), "the batch is the class's, not the request's"
    assert "visual_token" not in FIT and RealFakeSettings().visual_token == "own"


def test_images_from_images_do_not_depend_on_their_neighbours(tiny_parts: Any) -> None:
    latents, cond = torch.randn(3, 4, 8, 8), torch.randn(3, 16, 16)
    noise = torch.stack([image_noise(seed, (4, 8, 8)) for seed in range(3)])

    def some(rows: list[int]) -> np.ndarray:
        start = ImageStart(latents[rows], noise[rows], 0.75)
        uncond = torch.zeros(16, 16)
        return sample_from_images(tiny_parts, cond[rows], uncond, start, steps=4, guidance=2.0, micro_batch=4)

    whole = some([0, 1, 2])
    assert (some([2])[0] == whole[2]).all() and (some([1, 0])[1] == whole[0]).all()
    assert (whole[0] != whole[1]).any()


class Coloured:
    """Nine plain images with a condition each."""

    def __len__(self) -> int:
        return 9

    def image(self, position: int, generator: torch.Generator) -> torch.Tensor:
        flip = torch.rand((), generator=generator)
        return torch.full((3, 16, 16), position / 9) + 0.1 * flip

    def condition(self, positions: Any) -> torch.Tensor:
        return torch.stack([torch.full((16, 16), float(position)) for position in positions])


class Killed(Exception):
    """Stands for a kill between two updates."""


@pytest.mark.parametrize("whole_unet", [True, False])
def test_finetunes_resume_bit_for_bit(tiny_parts: Any, tmp_path: Path, whole_unet: bool) -> None:
    import copy

    def one(folder: Path, stop: int = 0) -> tuple[dict[str, torch.Tensor], str]:
        unet = copy.deepcopy(tiny_parts.unet)
        if whole_unet:
            trained = dict(unet.requires_grad_(True).named_parameters())
        else:
            trained = add_lora(unet, 2, 5)
        schedule = Schedule(5, 4, 2 if whole_unet else 4, 1e-3, decay="cosine", checkpoint_every=2)
        loss = noise_prediction_loss if whole_unet else realfake_loss
        run = Finetune(tiny_parts, unet, trained, Coloured(), schedule, loss, seed=3, facts={"test": 1})

        def progress(done: int, total: int, note: str) -> None:
            if done == stop:
                raise Killed

        run.run(folder / "scratch", folder / "log.jsonl", progress)
        return {name: value.detach().clone() for name, value in trained.items()}, (folder / "log.jsonl").read_text()

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    straight, log = one(tmp_path / "a")
    for stop in (1, 3):
        with pytest.raises(Killed):
            one(tmp_path / "b", stop)
    resumed, log_resumed = one(tmp_path / "b")
    assert log == log_resumed and len(log.splitlines()) == 5
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert json.loads(log.splitlines()[0])["lr"] == 1e-3 and json.loads(log.splitlines()[-1])["lr"] < 1.1e-4


def test_every_image_once_a_pass_and_the_order_is_the_seeds() -> None:
    first = [position_at(7, 1, place) for place in range(14)]
    assert sorted(first[:7]) == sorted(first[7:]) == list(range(7)) and first[:7] != first[7:]
    assert [position_at(7, 2, place) for place in range(7)] != first[:7]
    assert (updates_of(1, 1_281_167, 20), updates_of(2, 1200, 8)) == (64_059, 300)


def test_oracle_captions_name_the_class_of_every_training_image() -> None:
    from harness.core.classes import load_classes
    from harness.microworld.captions import training_captions

    classes = load_classes("micro")
    paths = [f"{wnid}/{wnid}_{index}.JPEG" for wnid in classes.ids for index in (0, 57)]
    captions = training_captions(paths)
    for path, caption in zip(paths, captions, strict=True):
        assert classes.names[classes.ids.index(path.split("/")[0])] in caption
    assert captions == [training_captions([path])[0] for path in paths] and len(set(captions)) > 12


def test_captions_from_a_file(tmp_path: Path) -> None:
    images: Any = SimpleNamespace(names=["a/1.jpg", "a/2.jpg"])
    file = tmp_path / "captions.jsonl"
    file.write_text('{"path": "a/2.jpg", "class_index": 0, "caption": "two"}\n')
    with pytest.raises(DataMissing, match="no caption of 1 images"):
        open_captioner(str(file), images, "cpu")
    with file.open("a") as stream:
        stream.write('{"path": "a/1.jpg", "class_index": 0, "caption": "one"}\n')
    caption = open_captioner(f"file:{file}", images, "cpu")
    assert [caption(0), caption(1)] == ["one", "two"] and open_captioner("none", images, "cpu")(1) == ""
    with pytest.raises(UserError, match="not pinned"):
        captioner_config("hub:Salesforce/blip2-opt-2.7b")


def test_captioner_class_builds_from_a_config_file_by_path(tmp_path: Path) -> None:
    """The published configuration of BLIP-2 with OPT 2.7B, on the meta device: nothing is downloaded or allocated."""
    text = {"model_type": "opt", "hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32,
            "num_attention_heads": 32, "word_embed_proj_dim": 2560}  # fmt: skip
    config = {"model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"], "text_config": text}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    kind = captioner_class(str(path))
    with torch.device("meta"):
        model = kind(captioner_config(str(path)))
    assert kind.__name__ == "Blip2ForConditionalGeneration"
    assert 3.6e9 < sum(p.numel() for p in model.parameters()) < 3.9e9
    path.write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(UserError, match="is no captioner"):
        captioner_class(str(path))


def test_captions_by_a_tiny_captioner_of_the_real_kind(tmp_path: Path) -> None:
    """A BLIP-2 with random weights, saved and opened as a published one is; captions do not depend on the order."""
    from PIL import Image
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        PreTrainedTokenizerFast,
    )

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_word_tokenizer(), pad_token="<pad>", eos_token="</s>")
    processor = Blip2Processor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer, num_query_tokens=2)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**small, "image_size": 16, "patch_size": 8},
        qformer_config={**small, "encoder_hidden_size": 16, "vocab_size": 64},
        text_config={"model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "word_embed_proj_dim": 16, "vocab_size": len(processor.tokenizer),
                     "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "max_position_embeddings": 128},
        num_query_tokens=2,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        Blip2ForConditionalGeneration(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pictures = [Image.fromarray(np.full((20, 24, 3), value, np.uint8)) for value in (10, 240)]
    images: Any = SimpleNamespace(names=["a/1.jpg", "a/2.jpg"], picture=pictures.__getitem__)
    caption = open_captioner(str(tmp_path), images, "cpu")
    forwards = [caption(0), caption(1)]
    assert [caption(1), caption(0)] == forwards[::-1]
    assert all(isinstance(text, str) and text and "<" not in text for text in forwards)


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<pad>", "</s>", "<unk>", *(f"word{number}" for number in range(40))]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def test_features_see_the_square_of_clips_published_processor() -> None:
    """Against transformers' resize and centre crop, for margins of every remainder; torchvision's differ by a pixel in some."""
    import transformers
    from PIL import Image
    from torchvision.transforms.functional import center_crop

    kind = getattr(
        transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor
    )  # before version 5 the only one
    processor = kind(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_rescale=False, do_normalize=False
    )
    differing = 0
    for width, height in [(16 + margin, 16) for margin in range(9)] + [(24, 39), (50, 33)]:
        image = Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
        ours = np.asarray(clip_square(image, 16))
        theirs = processor(images=image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        assert (ours == theirs.round()).all(), (width, height)
        if height == 16:
            differing += bool((ours != np.asarray(center_crop(image, [16, 16]))).any())
    assert differing == 2, "margins of 3 and 7"


class Stop(Exception):
    """Stands for a kill."""


def real_images_ctx(folder: Path, count: int, progress: Any) -> Any:
    from PIL import Image

    (folder / "train" / "a").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train" / "a" / f"{i}.png")
    (folder / "scratch").mkdir(exist_ok=True)
    return SimpleNamespace(
        data=lambda name: folder,
        classes=SimpleNamespace(ids=("a",)),
        device="cpu",
        source=lambda name: "x",
        scratch=folder / "scratch",
        out=folder,
        progress=progress,
    )


@pytest.mark.parametrize("work", ["features", "captions"])
def test_features_and_captions_go_on_after_a_kill(
    tmp_path: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """What was made before the kill is kept, a torn end is cut, and the bytes are those of one go."""
    from generators.realfake import captions, features

    monkeypatch.setattr(features, "load_named_encoder", lambda source, device: tiny_clip)
    made: list[int] = []
    real = features.feature

    def counted(tower: Any, images: Any, position: int, device: str) -> np.ndarray:
        made.append(position)
        return real(tower, images, position, device)

    monkeypatch.setattr(features, "feature", counted)
    monkeypatch.setattr(
        captions,
        "open_captioner",
        lambda spec, images, device: lambda position: made.append(position) or f"n {position}",
    )
    for module in (features, captions):
        monkeypatch.setattr(module, "_EVERY", 1)
    module, write = (features, features.write_features) if work == "features" else (captions, captions.write_captions)

    def killing(done: int, total: int, note: str) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        write(real_images_ctx(tmp_path / "b", 5, killing))
    (part,) = (tmp_path / "b" / "scratch").iterdir()
    with part.open("ab") as stream:
        stream.write(b"torn")
    write(real_images_ctx(tmp_path / "b", 5, lambda *_: None))
    assert made == [0, 1, 2, 3, 4]
    write(real_images_ctx(tmp_path / "a", 5, lambda *_: None))
    assert (tmp_path / "a" / module.FILE).read_bytes() == (tmp_path / "b" / module.FILE).read_bytes()
    if work == "features":
        rows = np.load(tmp_path / "a" / features.FILE)
        assert rows.dtype == np.float16 and rows.shape == (5, tiny_clip.dim)
