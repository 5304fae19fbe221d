"""Frozen encoders on whose features images are compared: open_clip and timm, from a folder or by name, with their own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import DataMissing, FloatArray, UserError, create_open_clip

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

BATCH = 64
"""Images of one call; the last one is filled up, because kernels may change low bits with the batch size."""
_FIX = "give a folder of open_clip or timm, open_clip:NAME@TAG or timm:NAME"


@dataclass(frozen=True)
class Encoder:
    """An image encoder, and the text encoder that belongs to it, if any."""

    transform: Callable[[Image], torch.Tensor]
    encode: Callable[[torch.Tensor], torch.Tensor]
    encode_texts: Callable[[Sequence[str]], torch.Tensor] | None
    device: str

    def features(self, images: Iterable[Image], batch: int = BATCH) -> FloatArray:
        """Return (n, d) float64 features, not normalised."""
        import torch

        found = []
        with torch.inference_mode():
            for part in _batched((self.transform(image) for image in images), batch):
                filled = torch.stack([*part, *[part[-1]] * (batch - len(part))]).to(self.device)
                found.append(self.encode(filled)[: len(part)].double().cpu().numpy())
        return np.concatenate(found)

    def texts(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, d) float64 features of texts, each encoded by itself.

        Raises:
            UserError: the encoder has no text side.
        """
        import torch

        if self.encode_texts is None:
            raise UserError("the setting clip names no CLIP", "the model has no text encoder", "name one of open_clip")
        with torch.inference_mode():
            return np.concatenate([self.encode_texts([text]).double().cpu().numpy() for text in texts])


def _batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield tuple(part)
            part = []
    if part:
        yield tuple(part)


def load_encoder(source: str, device: str) -> Encoder:
    """Load an encoder.

    Args:
        source: Folder of open_clip (``open_clip_config.json``) or of timm (``config.json``), ``open_clip:NAME@TAG``, or ``timm:NAME``.
        device: Where it runs.

    Raises:
        DataMissing: there is no such model, or it cannot be fetched.
        UserError: weights and network do not fit.
    """
    try:
        if source.startswith("timm:") or (Path(source) / "config.json").is_file():
            return _timm(source, device)
        return _open_clip(source, device)
    except (RuntimeError, ValueError, OSError, KeyError, TypeError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataMissing(f"cannot load the encoder {source}", why, _FIX) from error


def _open_clip(source: str, device: str) -> Encoder:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    name, _, tag = source.removeprefix("open_clip:").partition("@")
    if not source.startswith("open_clip:"):
        if not (Path(source) / "open_clip_config.json").is_file():
            raise DataMissing(f"no encoder at {source}", "it has neither open_clip_config.json nor config.json", _FIX)
        name, tag = f"local-dir:{source}", ""
    model = create_open_clip(name, tag or None, device=device).eval()
    tokenizer = open_clip.get_tokenizer(name)
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return Encoder(
        transform, model.encode_image, lambda texts: model.encode_text(tokenizer(list(texts)).to(device)), device
    )


def _timm(source: str, device: str) -> Encoder:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    name = source.removeprefix("timm:") if source.startswith("timm:") else f"local-dir:{source}"
    model = timm.create_model(name, pretrained=True, num_classes=0).to(device).eval()
    return Encoder(create_transform(**resolve_model_data_config(model), is_training=False), model, None, device)
