"""The classifier that suites see: images in [0, 1] in, logits or features out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from harness.backbones.checkpoint import BackboneInfo, load_backbone
from harness.backbones.models import is_convolutional
from harness.core.errors import UserError

KINDS = ("pooled", "cls", "gap")


class Classifier:
    """Classify float RGB images with a frozen network; normalisation and class order are its own.

    Args:
        model: The network.
        info: How it was made and what its outputs mean.
        fingerprint: SHA-256 of the weights.
        device: Where it runs.

    Attributes:
        classes: Ordered class ids of the logits; empty when the network has no classifier head.
        image_size: Side of its training images in pixels.
        interpolation: How images are resized for it.
        identity: One short string for the architecture, the weights and the way images are fed.
    """

    def __init__(
        self, model: torch.nn.Module, info: BackboneInfo, fingerprint: str, device: str | torch.device = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.info, self.classes, self.image_size = info, info.classes, info.image_size
        self.interpolation = info.interpolation
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        self.convolutional = is_convolutional(model)
        if self.convolutional:
            self.model.to(memory_format=torch.channels_last)
        self._mean = torch.tensor(info.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(info.std, device=self.device)[:, None, None]
        feed = (info.mean, info.std, info.image_size, info.interpolation, info.crop, info.precision)
        facts = json.dumps([fingerprint, info.kwargs, info.classes, *feed], sort_keys=True)
        self.identity = f"{info.arch}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of (B, 3, H, W) images in [0, 1]: (B, K) float32.

        Raises:
            UserError: The network has no classifier head.
        """
        if not self.classes:
            raise UserError(
                f"{self.info.arch} cannot classify",
                "its checkpoint has no classifier head, so it gives features only",
                "choose suites that use features, or a checkpoint with its head",
            )
        with torch.no_grad(), self._autocast():
            logits: torch.Tensor = self.model(self._normalise(x))
        return logits.float()

    def features(self, x: torch.Tensor, kind: str = "pooled") -> torch.Tensor:
        """Return features of (B, 3, H, W) images in [0, 1]: (B, d) float32.

        Args:
            x: Images.
            kind: "pooled", what the classifier head sees; "gap", the mean over places (of the map, or of the
                patch tokens after the last norm); "cls", the class token.

        Raises:
            UserError: The network has no such features.
        """
        if kind not in KINDS:
            raise UserError(f"unknown features {kind!r}", "no such kind", f"use one of {', '.join(KINDS)}")
        with torch.no_grad(), self._autocast():
            last: torch.Tensor = self.model.forward_features(self._normalise(x))  # type: ignore[operator]
            if kind == "pooled":
                pooled: torch.Tensor = self.model.forward_head(last, pre_logits=True)  # type: ignore[operator]
                return pooled.float()
        prefix = 0 if self.convolutional else int(self.model.num_prefix_tokens)  # type: ignore[arg-type]
        if kind == "cls" and prefix == 0:
            raise UserError(f"{self.info.arch} has no class token", "it pools over places", "use pooled or gap")
        if kind == "cls":
            return last[:, 0].float()
        return last.float().mean((2, 3)) if self.convolutional else last[:, prefix:].float().mean(1)

    def _autocast(self) -> torch.autocast:
        """Compute as the precision says; normalisation, logits and features are float32 in any case."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.info.precision == "bf16")

    def _normalise(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(f"expected float images (B, 3, H, W), got {tuple(x.shape)} {x.dtype}")
        x = x.to(self.device, torch.float32)
        if len(x) and not (float(x.min()) >= -1e-3 and float(x.max()) <= 1 + 1e-3):
            raise ValueError(f"expected images in [0, 1], got [{float(x.min()):.3f}, {float(x.max()):.3f}]")
        x = (x - self._mean) / self._std
        return x.contiguous(memory_format=torch.channels_last) if self.convolutional else x


def load_classifier(folder: Path, weights: str | None = None, device: str | torch.device = "cpu") -> Classifier:
    """Load the classifier of a backbone folder.

    Args:
        folder: The backbone folder.
        weights: "ema" or "raw"; the folder's own choice when not given.
        device: Where it runs.

    Raises:
        DataMissing: The folder or the weights are not there.
        UserError: The weights are damaged or do not fit.
    """
    model, info, fingerprint = load_backbone(folder, weights)
    return Classifier(model, info, fingerprint, device)
