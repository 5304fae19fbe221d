"""Worlds of known bias: renders whose correlations between the class and each other cause are planted.

In these worlds a texture is a pattern with a colour of its own. Patterns of free colour are so much harder to see than shapes
at 64 px that a network does not learn them even if they name the class of 80 % of its images (TI stayed below 1 %), and an
instrument cannot be tested with a bias that nobody has.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, create_model

from harness.api import Context, Generator, GeneratorCard, Request, Sample, Settings, UserError

CAUSES = ("texture", "scene", "light", "weather")
PLACEMENT = ("size", "position")
"""Causes of how large an object is and where it stands, no part of ``all``. Only worlds that name one vary it, and have its setting:
at ``size=0`` objects are of all sizes whatever their class."""
FLAWS = ("duplicates", "modes", "labels", "tint")
"""Flaws of the data set, no part of ``all`` either, with a setting in worlds that name one: the share of images that are near copies, of
looks that never occur, of images that show another class, and of images with a colour cast."""


class WorldSettings(Settings):
    """One dose per cause: the probability that it takes the value its class prefers; otherwise it is uniform."""

    texture: float = Field(0.0, ge=0, le=1)
    scene: float = Field(0.0, ge=0, le=1)
    light: float = Field(0.0, ge=0, le=1)
    weather: float = Field(0.0, ge=0, le=1)


class World(Generator[WorldSettings]):
    """``world:CAUSE=DOSE+...``: renders of a world with these doses and none in the other causes.

    ``all`` means texture, scene, light and weather.
    """

    card = GeneratorCard(
        id="world",
        version=1,
        summary="world:texture=0.4+scene=0.2 renders the embedded world with these planted correlations; `calibrate` uses it.",
        information=("class_names",),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        sampler="procedural renderer",
        cost="a millisecond an image",
        citation="none: an instrument of this harness",
        licence="Apache-2.0",
        reading="not a generator under test: its bias is known, so what a metric says of it tests the metric",
        default=False,
    )
    Settings = WorldSettings

    def bind(self, argument: str) -> Generator:
        """Return the generator of one world.

        Raises:
            UserError: an unknown cause, or a dose outside [0, 1].
        """
        doses: dict[str, float] = {}
        for part in argument.split("+"):
            cause, _, dose = part.partition("=")
            try:
                value = float(dose)
            except ValueError:
                value = -1.0
            if cause not in (*CAUSES, *PLACEMENT, *FLAWS, "all") or not 0 <= value <= 1:
                raise UserError(
                    f"no world is called {argument!r}",
                    f"{part!r} is not CAUSE=DOSE with a cause of {', '.join((*CAUSES, *PLACEMENT, *FLAWS))}, all and a dose from 0 to 1",
                    "e.g. world:texture=0.4+scene=0.2",
                )
            doses |= dict.fromkeys(CAUSES, value) if cause == "all" else {cause: value}
        bound = World()
        bound.card = self.card.__class__(**{**vars(self.card), "id": f"world:{argument}"})  # type: ignore[misc]
        fields = {cause: (float, Field(dose, ge=0, le=1)) for cause, dose in doses.items()}
        bound.Settings = create_model("WorldSettings", __base__=WorldSettings, **fields)  # type: ignore[call-overload, misc]
        return bound

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield renders; the causes and the picture of an image follow from its own seed, of a copy from that of its original."""
        import numpy as np

        from harness.microworld.causes import SHAPES, Doses, draw_causes
        from harness.microworld.flaws import finish, mislabelled, originals, without_modes
        from harness.microworld.placement import planted_placement
        from harness.microworld.renderer import render, to_uint8

        if request.class_name not in SHAPES:
            raise UserError(
                f"no render shows {request.class_name!r}",
                f"the renderer knows {', '.join(SHAPES)}",
                "use it with the profile of the embedded world",
            )
        settings = ctx.params["settings"]
        flaws = {flaw: settings.get(flaw, 0.0) for flaw in FLAWS}
        indices = np.arange(request.start, request.stop)
        seeds, copies = originals(indices, request.seed, flaws["duplicates"])
        shapes = mislabelled(np.full(len(indices), SHAPES.index(request.class_name)), seeds, flaws["labels"])
        place = planted_placement(shapes, seeds, *map(settings.get, PLACEMENT))
        causes = draw_causes(shapes, seeds, Doses(**{cause: settings[cause] for cause in CAUSES}))
        rendered = render(
            without_modes(causes, flaws["modes"]), seeds, size_px=request.size_px, place=place, coloured=True
        )
        images = to_uint8(finish(rendered.images, copies, seeds, flaws["tint"]))
        for index, image in zip(indices, images.transpose(0, 2, 3, 1), strict=True):
            yield Sample(int(index), np.ascontiguousarray(image), seed=request.seed(int(index)))
