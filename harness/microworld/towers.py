"""The shipped towers of the embedded world: where they are, how they are opened, and what is measured on them.

Nothing heavy is imported until a tower is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.microworld.captions import level_prompts
from harness.microworld.causes import (
    LIGHTS,
    SCENES,
    SHAPES,
    TEXTURES,
    WEATHERS,
    partner_light,
    partner_scene,
    partner_texture,
    partner_weather,
)

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).parent / "weights"
LEVEL_SCORES: tuple[float, ...] = (5.0, 4.0, 3.0, 2.0, 1.0)  # excellent, good, fair, poor, bad
HEADS: dict[str, int] = {
    "shape": len(SHAPES), "texture": len(TEXTURES), "scene": len(SCENES), "light": len(LIGHTS),
    "weather": len(WEATHERS),
}  # fmt: skip
PARTNERS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "texture": partner_texture, "scene": partner_scene, "light": partner_light, "weather": partner_weather,
}  # fmt: skip
_MEAN, _STD = 0.5, 0.25
_SAMPLED_TOGETHER = 24  # with guidance 48 latents a call, which still fit the cache of one core


def sd_folder() -> Path:
    """Return the folder that `diffusers.StableDiffusionPipeline.from_pretrained` opens."""
    return WEIGHTS / "sd"


def clip_folder(size: Literal["base", "large"]) -> Path:
    """Return the folder of a CLIP, which open_clip opens as `local-dir:<folder>`."""
    return WEIGHTS / f"clip_{size}"


def quality_folder() -> Path:
    """Return the folder of the quality tower, an open_clip model read with five level prompts."""
    return WEIGHTS / "quality"


def attributes_folder() -> Path:
    """Return the folder of the attribute classifier."""
    return WEIGHTS / "attributes"


def load_clip(folder: Path) -> tuple[Any, Any]:
    """Open an open_clip folder; return (frozen model in eval mode, tokenizer).

    The model takes normalised images; `encode_pictures` takes pictures in [0, 1].
    """
    import open_clip

    name = f"local-dir:{folder}"
    model = open_clip.create_model(name, precision="fp32").eval().requires_grad_(False)
    return model, open_clip.get_tokenizer(name)


def encode_pictures(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return unit features (n, 64) of float pictures (n, 3, 64, 64) in [0, 1]; differentiable."""
    return model.encode_image((images - _MEAN) / _STD, normalize=True)


@lru_cache(maxsize=4)
def _clip(folder: Path) -> tuple[Any, Any]:
    return load_clip(folder)


def zero_shot_accuracy(folder: Path, images: NDArray[np.uint8], shapes: NDArray[np.int64]) -> float:
    """Return how often a CLIP names the shape of a picture among the prompts `photo of {name}`."""
    import torch

    model, tokenize = _clip(folder)
    with torch.no_grad():
        text = model.encode_text(tokenize([f"photo of {name}" for name in SHAPES]), normalize=True)
        parts = [encode_pictures(model, part) @ text.T for part in _batches(images)]
    return float((torch.cat(parts).argmax(1).numpy() == shapes).mean())


def quality_scores(images: torch.Tensor, folder: Path | None = None) -> torch.Tensor:
    """Return Q in [1, 5] of pictures (n, 3, 64, 64) in [0, 1]: the level scores weighted by the level probabilities.

    Differentiable with respect to the pictures.
    """
    import torch

    model, tokenize = _clip(quality_folder() if folder is None else folder)
    with torch.no_grad():
        text = model.encode_text(tokenize(list(level_prompts())), normalize=True)
    logits = model.logit_scale.exp() * encode_pictures(model, images) @ text.T
    return logits.softmax(dim=1) @ torch.tensor(LEVEL_SCORES)


def quality_order_rate(images: NDArray[np.uint8], seed: int = 0, folder: Path | None = None) -> float:
    """Return how often Q orders clean > mild > strong degradation, over pictures and kinds of degradation."""
    import torch

    from harness.microworld.degrade import KINDS, MILD, STRONG, degrade

    clean = torch.from_numpy(images).float() / 255
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        q_clean = quality_scores(clean, folder)
        rates = []
        for kind in KINDS:
            q_mild = quality_scores(degrade(clean, kind, MILD, generator), folder)
            q_strong = quality_scores(degrade(clean, kind, STRONG, generator), folder)
            rates.append(((q_clean > q_mild) & (q_mild > q_strong)).float().mean())
    return float(torch.stack(rates).mean())


def new_attribute_network() -> Any:
    """Build the untrained attribute classifier: a tiny ResNet whose outputs are the heads of HEADS, in order."""
    import timm

    return timm.create_model("test_resnet", num_classes=sum(HEADS.values()))


@lru_cache(maxsize=1)
def _attribute_network() -> tuple[Any, dict[str, NDArray[np.float64]]]:
    from safetensors.torch import load_file

    state = load_file(attributes_folder() / "attributes.safetensors")
    confusion = {
        key.removeprefix("confusion."): state.pop(key).double().numpy()
        for key in sorted(state)
        if key.startswith("confusion.")
    }
    network = new_attribute_network()
    network.load_state_dict(state)
    return network.float().eval().requires_grad_(False), confusion


def predict_attributes(images: NDArray[np.uint8], network: Any | None = None) -> dict[str, NDArray[np.int64]]:
    """Return the predicted shape, texture, scene, light and weather of pictures (n, 3, 64, 64)."""
    import torch

    model = _attribute_network()[0] if network is None else network
    with torch.no_grad():
        logits = torch.cat([model((part - _MEAN) / _STD) for part in _batches(images)])
    heads = logits.split(list(HEADS.values()), dim=1)
    return {name: head.argmax(1).numpy() for name, head in zip(HEADS, heads, strict=True)}


def attribute_confusion() -> dict[str, NDArray[np.float64]]:
    """Return, per head, the matrix P(predicted | true) of the shipped classifier on the balanced world."""
    return _attribute_network()[1]


def naming_accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return how often the classifier trained on renders names the class that a picture was made for."""
    return float((predict_attributes(images)["shape"] == labels).mean())


def confusion_of(network: Any, images: NDArray[np.uint8], truth: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Return, per head, the matrix P(predicted | true) of a network on pictures with known causes."""
    predicted = predict_attributes(images, network)
    return {name: _rows(truth[name], predicted[name], size, size) for name, size in HEADS.items()}


def _rows(rows: NDArray[np.int64], columns: NDArray[np.int64], n: int, m: int) -> NDArray[np.float64]:
    """Return P(column | row) as an (n, m) matrix; a row that never occurs is nan."""
    counts = np.zeros((n, m))
    np.add.at(counts, (rows, columns), 1)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)


def generated_correlation(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, float]:
    """Estimate the dose rho between class and texture, scene, light and weather in pictures of any origin.

    Under a dose rho, class c shows attribute a with probability rho [a = partner(c)] + (1 - rho) q(a) for some q.
    Subtracting the mean over classes removes q; the classifier's confusion matrix M maps the rest to predictions:
    P(b | c) - mean_c P(b | c) = rho (M[partner(c), b] - mean_c M[partner(c), b]). rho is the least-squares slope.

    Args:
        images: (n, 3, 64, 64) uint8.
        labels: (n,) class indices the pictures were made for; at least two classes.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("a correlation with the class needs pictures of at least two classes")
    confusion = _attribute_network()[1]
    predicted = predict_attributes(images)
    doses = {}
    for name, partner in PARTNERS.items():
        seen = _rows(labels, predicted[name], len(SHAPES), HEADS[name])
        present = ~np.isnan(seen[:, 0])
        expected = confusion[name][partner(np.arange(len(SHAPES)))][present]
        expected = expected - expected.mean(0)
        observed = seen[present] - seen[present].mean(0)
        doses[name] = float((observed * expected).sum() / (expected**2).sum())
    return doses


def _batches(images: NDArray[np.uint8], size: int = 200) -> list[torch.Tensor]:
    import torch

    return [torch.from_numpy(images[i : i + size]).float() / 255 for i in range(0, len(images), size)]


def sample_pictures(labels: NDArray[np.int64], seed: int, *, steps: int = 20, folder: Path | None = None) -> Any:
    """Sample the diffusion model: one uint8 picture (3, 64, 64) per label, PNDM, guidance 2.0, bare class names."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(sd_folder() if folder is None else folder)
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(labels), _SAMPLED_TOGETHER):
        part = labels[start : start + _SAMPLED_TOGETHER]
        noise = torch.stack([
            torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed + start + i)) for i in range(len(part))
        ])  # fmt: skip
        made = pipeline(
            [SHAPES[label] for label in part], latents=noise, num_inference_steps=steps, guidance_scale=2.0,
            output_type="np", height=64, width=64,
        )  # fmt: skip
        parts.append(np.round(made.images * 255).astype(np.uint8).transpose(0, 3, 1, 2))
    return np.concatenate(parts)
