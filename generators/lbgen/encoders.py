"""Frozen encoders that score images; only values and gradients with respect to the images cross their border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from generators.diffusion.pipeline import freeze
from generators.lbgen.adjoint import scaled_pullback
from generators.lbgen.preprocess import preprocess
from generators.lbgen.quality.api import QualityScorer
from harness.api import DataMissing, create_open_clip, first_line

LOCAL = "local-dir:"


class ImageTextEncoder(Protocol):
    """An image-text model."""

    @property
    def dim(self) -> int:
        """Return the width of the features."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return (N, dim) features, not normalised."""

    def image_features(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return detached (B, dim) features, not normalised, and the map from dL/d features to dL/d images.

        Images are (B, 3, H, W) floats in nominal [0, 1], not clamped. The map may be called once.
        """


@dataclass(frozen=True)
class RewardModels:
    """The reward models of a fine-tune; one whose weight is zero stays None."""

    clip: ImageTextEncoder | None = None
    quality: QualityScorer | None = None


class OpenClipEncoder:
    """A frozen open_clip model behind the ImageTextEncoder interface; size and constants come from the model."""

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[[list[str]], Tensor],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model: Any = freeze(model, torch.device(device))
        self._tokenizer = tokenizer
        self._device = torch.device(device)
        self._dtype = dtype
        config = model.visual.preprocess_cfg
        size = config["size"]
        self.size = int(size if isinstance(size, int) else size[0])
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.dim = int(self.text_features(["a"]).shape[-1])

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return (N, dim) float32 features, not normalised, each text encoded by itself."""
        rows = [self.model.encode_text(self._tokenizer([text]).to(self._device)) for text in texts]
        return torch.cat(rows).float()

    def image_features(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return detached (B, dim) features and the map from dL/d features to dL/d images."""
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            features = self.model.encode_image(preprocess(leaf, self.size, self.mean, self.std).to(self._dtype))

        def pullback(gradient: Tensor) -> Tensor:
            return scaled_pullback(features, gradient, [leaf])[0]

        return features.detach().to(images.dtype), pullback


def load_open_clip(
    model: str,
    pretrained: str | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> OpenClipEncoder:
    """Load an encoder: ``local-dir:PATH``, or an open_clip model name with a pretrained tag or weights file.

    OpenAI's CLIP ViT-L/14 is ``("ViT-L-14-quickgelu", "openai")``.

    Raises:
        DataMissing: the folder, the name or the weights are not there.
        UserError: weights and network do not fit.
    """
    import open_clip

    fix = "give local-dir:FOLDER with open_clip_config.json and weights, or an open_clip name with a pretrained tag"
    if model.startswith(LOCAL) and not (Path(model.removeprefix(LOCAL)) / "open_clip_config.json").is_file():
        raise DataMissing(f"no CLIP encoder at {model}", "there is no open_clip_config.json", fix)
    if not model.startswith(LOCAL) and pretrained is None:
        raise DataMissing(f"the CLIP encoder {model} has no weights", "no pretrained tag was given", fix)
    precision = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
    try:
        made = create_open_clip(model, pretrained, precision=precision, device=str(device))
        return OpenClipEncoder(made, open_clip.get_tokenizer(model), device, dtype)
    except (RuntimeError, ValueError, OSError) as error:
        raise DataMissing(f"cannot load the CLIP encoder {model}", first_line(error), fix) from error


def load_named_encoder(
    source: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> OpenClipEncoder:
    """Load the encoder that a setting names: an open_clip folder, or ``open_clip:NAME@TAG``.

    Raises:
        DataMissing: the folder, the name or the weights are not there.
    """
    if not source.startswith("open_clip:"):
        return load_open_clip(f"{LOCAL}{source}", device=device, dtype=dtype)
    name, _, tag = source.removeprefix("open_clip:").partition("@")
    return load_open_clip(name, tag or None, device=device, dtype=dtype)
