"""How good the embedded networks are: what their floors are stated in."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.microworld import towers
from harness.microworld.captions import LEVELS
from harness.microworld.causes import SHAPES
from harness.microworld.degrade import KINDS, MILD, STRONG, degrade

LEVEL_SCORES: tuple[float, ...] = (5.0, 4.0, 3.0, 2.0, 1.0)  # excellent, good, fair, poor, bad
_SAMPLED_TOGETHER = 24  # with guidance 48 latents a call, which still fit the cache of one core


@lru_cache(maxsize=4)
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
    return model.encode_image((images - towers._MEAN) / towers._STD, normalize=True)


def quality_scores(images: torch.Tensor, folder: Path | None = None) -> torch.Tensor:
    """Return Q in [1, 5] of pictures (n, 3, 64, 64) in [0, 1]: the level scores weighted by the level probabilities.

    Differentiable with respect to the pictures.
    """
    model, tokenize = load_clip(towers.quality_folder() if folder is None else folder)
    with torch.no_grad():
        text = model.encode_text(tokenize([f"{level} photo" for level in LEVELS]), normalize=True)
    logits = model.logit_scale.exp() * encode_pictures(model, images) @ text.T
    return logits.softmax(dim=1) @ torch.tensor(LEVEL_SCORES)


def zero_shot_accuracy(folder: Path, images: NDArray[np.uint8], shapes: NDArray[np.int64]) -> float:
    """Return how often a CLIP names the shape of a picture among the prompts `photo of {name}`."""
    model, tokenize = load_clip(folder)
    with torch.no_grad():
        text = model.encode_text(tokenize([f"photo of {name}" for name in SHAPES]), normalize=True)
        parts = [encode_pictures(model, part) @ text.T for part in torch.from_numpy(images).float().div(255).split(200)]
    return float((torch.cat(parts).argmax(1).numpy() == shapes).mean())


def quality_order_rate(images: NDArray[np.uint8], seed: int = 0, folder: Path | None = None) -> float:
    """Return how often Q orders clean > mild > strong degradation, over pictures and kinds of degradation."""
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


def naming_accuracy(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return how often the classifier trained on renders names the class that a picture was made for."""
    return float((towers.predict_attributes(images)["shape"] == labels).mean())


def sample_pictures(labels: NDArray[np.int64], seed: int, *, steps: int = 20, folder: Path | None = None) -> Any:
    """Sample the diffusion model: one uint8 picture (3, 64, 64) per label, PNDM, guidance 2.0, bare class names."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(towers.sd_folder() if folder is None else folder)
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
