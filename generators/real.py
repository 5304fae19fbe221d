"""Real images: a folder of class folders, imported as it is."""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import Context, Generator, GeneratorCard, Request, Sample


class Real(Generator):
    """An ImageFolder of wnids. Nothing is copied or re-encoded; the training copy reads the files where they are."""

    card = GeneratorCard(
        id="real",
        version=1,
        summary="Real images: an ImageFolder of class ids (ImageNet, or the profile's own world).",
        information=("real_images",),
        real_pixels_at_training=True,
        real_pixels_at_synthesis=True,
        licence="that of the images; ImageNet is for non-commercial research",
        citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
        data=("train",),
        modes=("import",),
        count="as they are, at most images_per_class of a class",
        codec="as they are (ImageNet: JPEG)",
        cost="none",
    )

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Never called: images that exist are imported, not made."""
        raise NotImplementedError("real images are imported")
