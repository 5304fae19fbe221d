"""Dot-screen pictures: each class has a screen of its own, each image its own phase, angle and ink."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pydantic import Field

from harness.api import Context, Generator, GeneratorCard, Request, Sample, Settings


class HalftoneSettings(Settings):
    """The screen."""

    dots: int = Field(6, ge=2, description="Dots along a side of the picture")


class Halftone(Generator):
    """Screens whose ruling depends on the class name alone."""

    card = GeneratorCard(
        id="halftone",
        version=1,
        summary="Dot-screen pictures whose ruling names the class; CPU, microseconds.",
        information=("class_names",),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        prompts="the class name",
        sampler="none: drawn",
        cost="none to speak of",
        licence="Apache-2.0",
        citation="none: an example",
    )
    Settings = HalftoneSettings

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield one screen per image."""
        import numpy as np

        settings = ctx.settings(HalftoneSettings)
        ruling = 1 + hashlib.sha256(request.class_name.encode()).digest()[0] / 256
        axis = np.linspace(0, settings.dots * ruling, request.size_px, dtype=np.float64)
        for index in range(request.start, request.stop):
            rng = np.random.default_rng(request.seed(index))
            phase, angle, ink = rng.uniform(0, 6.28, 2), rng.uniform(0, 0.5), rng.uniform(60, 255, 3)
            x, y = np.meshgrid(axis, axis)
            u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            screen = (np.sin(6.28 * u + phase[0]) + np.sin(6.28 * v + phase[1]) + 2) / 4
            pixels = (screen[..., None] * ink).round().astype(np.uint8)
            yield Sample(index, pixels, prompt=request.class_name, seed=request.seed(index))
