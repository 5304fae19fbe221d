"""Score images with the models: every reward returns its value and its gradient with respect to the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from generators.lbgen.discriminator import Discriminator
from generators.lbgen.encoders import ImageTextEncoder, RewardModels
from generators.lbgen.losses import (
    alignment_loss,
    discriminator_loss,
    entire_alignment_value,
    individual_loss,
    quality_loss,
)
from generators.lbgen.quality.api import QualityScorer
from generators.lbgen.released import GENERATOR_TERMS, all_pairs_loss
from generators.lbgen.settings import RecipeSettings
from harness.api import UserError


@dataclass
class Batch:
    """A micro-batch of sampled images."""

    classes: Sequence[int]
    negatives: Sequence[int]
    """Class of the name that stands for "real" beside each image."""
    images: Tensor
    """(B, 3, H, W), nominal [0, 1], not clamped, without gradient."""
    features: Tensor | None = None
    """Detached CLIP features, once an encoder has looked at the images."""


class Rewards:
    """The weighted losses of one recipe; terms of weight zero are never computed and their models never asked."""

    DISCRIMINATOR_TERMS: ClassVar[tuple[str, ...]] = (
        "L_D",
        "L_en_paper",
        "accuracy_image",
        "accuracy_text",
        "logit_image",
        "logit_text",
    )

    def __init__(
        self, settings: RecipeSettings, models: RewardModels, names: Sequence[str], device: torch.device
    ) -> None:
        self.weights = {
            name: weight
            for name, weight in (
                ("L_en", settings.weight_en),
                ("L_in", settings.weight_in),
                ("L_q", settings.weight_q),
            )
            if weight > 0
        }
        self._form = settings.adversarial
        self._released = settings.variant == "released"
        self._clip: ImageTextEncoder | None = models.clip if settings.uses_clip else None
        self._quality: QualityScorer | None = models.quality if settings.weight_q > 0 else None
        if (settings.uses_clip and self._clip is None) or (settings.weight_q > 0 and self._quality is None):
            raise UserError(
                "a reward model is missing",
                f"the weights {self.weights} need it",
                "give the encoder, or set its weight to 0",
            )
        if settings.weight_en > 0:
            self.name_features = self._text(names).to(device)
        if settings.weight_in > 0:
            self.caption_features = self._text([settings.caption.format(name=name) for name in names]).to(device)

    def _text(self, texts: Sequence[str]) -> Tensor:
        assert self._clip is not None
        return self._clip.text_features(texts)

    @property
    def terms(self) -> tuple[str, ...]:
        """Return the names of the terms that are on."""
        return tuple(self.weights)

    @property
    def dim(self) -> int:
        """Return the width of the CLIP features."""
        assert self._clip is not None
        return self._clip.dim

    def total(self, values: dict[str, float]) -> float:
        """Return what the generator minimises: L_en + L_in + 0.1 L_q (lbGen, CVPR 2025), released L_en alone."""
        return sum(weight * values[name] for name, weight in self.weights.items() if self._reaches(name))

    def _reaches(self, name: str) -> bool:
        """Return whether a term is back-propagated into the generator."""
        return not self._released or name in GENERATOR_TERMS

    def encode(self, batch: Batch) -> None:
        """Fill in the batch's features without keeping any graph."""
        assert self._clip is not None
        batch.features, _ = self._clip.image_features(batch.images)

    def score(
        self,
        batch: Batch,
        discriminator: Discriminator | None,
        scale: Callable[[Tensor], Tensor] = lambda each: each,
    ) -> tuple[dict[str, float], Tensor]:
        """Return the unweighted terms and the gradient of the weighted total with respect to the images.

        Fills in the batch's features. The discriminator is only read: no gradient reaches its parameters. The gradient
        is that of ``scale(total)``: float16 needs a loss scale.
        """
        values: dict[str, float] = {}
        gradient = torch.zeros_like(batch.images)
        if self._clip is not None:
            batch.features, pullback = self._clip.image_features(batch.images)
            leaf = batch.features.clone().requires_grad_(True)
            with torch.enable_grad():
                losses = self._feature_losses(leaf, batch, discriminator)
                reaching = [name for name in losses if self._reaches(name)]
                weighted = torch.stack([self.weights[name] * losses[name] for name in reaching]).sum()
            gradient += pullback(torch.autograd.grad(scale(weighted), leaf)[0])
            values |= {name: float(loss.detach()) for name, loss in losses.items()}
        if self._quality is not None:
            scores, slope = self._quality.score_and_grad(batch.images)
            values["L_q"] = float(quality_loss(scores))
            if self._reaches("L_q"):
                gradient -= scale(self.weights["L_q"] / (5 * len(scores)) * slope.to(gradient))
        return values, gradient

    def _feature_losses(self, features: Tensor, batch: Batch, discriminator: Discriminator | None) -> dict[str, Tensor]:
        losses = {}
        if "L_en" in self.weights:
            assert discriminator is not None
            losses["L_en"] = alignment_loss(discriminator(features), self._form)
        if "L_in" in self.weights:
            loss = all_pairs_loss if self._released else individual_loss
            losses["L_in"] = loss(features, self.caption_features[list(batch.classes)].to(features))
        return losses

    def discriminator_terms(self, batch: Batch, discriminator: Discriminator) -> tuple[Tensor, dict[str, float]]:
        """Return L_D with its graph, and what is logged about the discriminator."""
        assert batch.features is not None
        image = discriminator(batch.features)
        text = discriminator(self.name_features[list(batch.negatives)].to(batch.features))
        loss = discriminator_loss(image, text)
        with torch.no_grad():
            logged = {
                "L_D": loss,
                "L_en_paper": entire_alignment_value(image, text),
                "accuracy_image": (image > 0).double().mean(),
                "accuracy_text": (text < 0).double().mean(),
                "logit_image": image.mean(),
                "logit_text": text.mean(),
            }
        return loss, {name: float(value.detach()) for name, value in logged.items()}
