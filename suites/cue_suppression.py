"""Suite `cue-suppression`: accuracy kept when colour, texture, global shape or local detail is taken out of validation images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from harness.api import ColumnKind, Context, Item, Score, Settings, Suite, SuiteCard, Units, classifier
from suites.in_domain import DATA

if TYPE_CHECKING:
    import pandas as pd

    from suites.bias.cues import Batch
    from suites.bias.suppression import Picture

_PICTURES_KEPT = 2**27
"""Bytes of suppressed pictures that a worker keeps for its next network: enough for the embedded world, not for photographs."""
_KEPT: dict[str, list[Batch]] = {}
"""The pictures of the last data set that was small enough; they hang on the data set and the levels alone."""


class SuppressionSettings(Settings):
    """Settings of cue suppression: levels from weak to strong, an empty list leaves a cue out."""

    colour: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.2, 0.4, 0.6, 0.8, 1.0), description="shares of grey"
    )
    texture: tuple[Annotated[int, Field(ge=2, le=64)], ...] = Field(
        default=(4, 6, 8, 10, 12, 14),
        description="diameters of the bilateral filter in pixels; sigma of colours 50 at 4, 200 at 14",
    )
    texture_nlm: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        default=(5, 10, 15, 20, 25), description="strengths h of non-local means"
    )
    global_shape: tuple[Annotated[int, Field(ge=2, le=64)], ...] = Field(
        default=(2, 4, 6, 8, 10, 12, 14, 16), description="tiles a side of the picture that are shuffled"
    )
    local_detail: tuple[Annotated[int, Field(ge=3, le=63)], ...] = Field(
        default=(3, 5, 7, 9, 11, 13, 15), description="odd sides of the Gaussian kernel in pixels; sigma (side - 1) / 6"
    )
    image_size: int = Field(
        default=224, ge=8, description="as in in-domain: side of the crop; checkpoints from outside have their own"
    )
    batch_size: int = Field(default=128, ge=1, description="images a step; changes no decision")
    threads: int = Field(default=1, ge=1, description="threads that decode and filter; change no decision")

    @field_validator("local_detail")
    @classmethod
    def _odd(cls, sides: tuple[int, ...]) -> tuple[int, ...]:
        if any(side % 2 == 0 for side in sides):
            raise ValueError("sides of a Gaussian kernel are odd")
        return sides

    def levels(self) -> dict[str, tuple[float, ...]]:
        """Return cue to its levels, rising."""
        from suites.bias.suppression import CUES

        return {cue: tuple(sorted(set(getattr(self, cue)))) for cue in CUES}


class CueSuppression(Suite[SuppressionSettings]):
    """Classify validation images with one cue taken out; one row per image, cue and level."""

    card = SuiteCard(
        id="cue-suppression",
        version=1,
        summary="Which cues does a network need? Accuracy kept on validation images without colour, texture, shape or detail.",
        formula="without_CUE = mean over levels of accuracy(CUE taken out at that level) / accuracy(same images, plain)",
        metrics={
            "without_colour": "accuracy kept, mean over shares of grey; read with accuracy, as all of these",
            "without_texture": "accuracy kept, mean over strengths of a bilateral filter, which smooths surfaces and keeps edges",
            "without_texture_nlm": "accuracy kept, mean over strengths of non-local means, a second way to smooth surfaces",
            "without_global_shape": "accuracy kept, mean over grids whose tiles are shuffled; what keeps it is in the tiles",
            "without_local_detail": "accuracy kept, mean over widths of a Gaussian blur",
            "without_*_*": "accuracy kept at one level of one cue, a point of its curve: without_global_shape_4 for a grid of 4 x 4",
            "accuracy": "accuracy on the plain images, that of in-domain",
        },
        conventions=(
            "images, transform and restriction of heads are those of in-domain, and so is the accuracy on plain images; cues are "
            "taken out of the 8-bit picture that the network is given, before it is normalised",
            "levels are those of feature-reliance: grey by 0.2 to 1; bilateral filter of 4 to 14 px with sigma 50 to 200 over colours "
            "and 75 over space; non-local means h 5 to 25, windows 15 and 21; grids of 2 to 16; Gaussian kernels of 3 to 15 px",
            "lengths are in pixels of the network's input, made for 224: the same level takes more out of a smaller input, so only "
            "networks of one input size are compared",
            "shuffles follow from the name of the image and the grid, equal for all networks; pixels that no whole tile takes stay",
            "interval: bootstrap over images with both their answers; 1 means that nothing is lost, and more is possible",
            "no cue is taken out alone: grey also takes scenes their colours, filters take fine shapes, and shuffling cuts edges in. "
            "A value describes a network; it is no score, and neither direction is better",
            "not valid where accuracy on plain images is below five times chance, or a quarter of the way from chance to 1 where that "
            "is less: a network that guesses keeps everything. Never ranked or gated, columns in the view 'bias' of the board",
        ),
        citation="Burgert et al., NeurIPS 2025 (arXiv 2509.20234)",
        sources=(
            "cues and levels: tomburgert/feature-reliance, reliance_protocol.py and transform.py; filters of OpenCV, as there",
            "mean over levels as the one number of a curve, intervals and checks are this harness's",
        ),
        known_disagreements=(
            "the public code resizes to a square and draws its shuffles anew on every call; here images are cropped as in in-domain, "
            "and the shuffle of an image is fixed",
            "the public code asks for a window of 14 pixels in non-local means, of which OpenCV makes 15; of an even diameter the "
            "bilateral filter makes the next odd one",
        ),
        order=740,
        data=(DATA,),
        groups=("instruments",),
        default=False,
    )
    Settings = SuppressionSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "item": "text",
        "cue": "text",
        "level": "number",
        "label": "integer",
        "predicted": "integer",
        "correct": "flag",
        "plain": "flag",
    }
    row_key = ("item", "cue", "level")
    unbounded = ("without_*",)
    own_size = True

    def protocol(self, settings: SuppressionSettings) -> str:
        """Say how images reach the network, and which levels are not the published ones."""
        from suites.transfer.transforms import eval_transform

        published = SuppressionSettings().levels()
        own = [f"{cue} {', '.join(f'{level:g}' for level in chosen) or 'left out'}"
               for cue, chosen in settings.levels().items() if chosen != published[cue]]  # fmt: skip
        words = f"; levels: {'; '.join(own)}" if own else ""
        return f"{eval_transform(settings.image_size)}, of a checkpoint from outside its own transform{words}"

    def cost(self, item: Item, settings: SuppressionSettings, cards: Mapping[str, Any]) -> str:
        """Return how often every image is classified."""
        return f"{1 + sum(map(len, settings.levels().values()))} pictures of each validation image"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image, cue and level."""
        import pandas as pd

        from suites.bias.cues import answer_with, classify_batches
        from suites.imagefolder import read_validation
        from suites.in_domain import ValidationCard, validation_outputs, validation_transform

        # In-domain's own choices, so that accuracy on plain images is its top-1.
        settings, model, root = ctx.settings(SuppressionSettings), classifier(ctx), ctx.data(DATA)
        card = ValidationCard.model_validate(dict(ctx.card(DATA)))
        ids, outputs = validation_outputs(tuple(model.classes), card, root)
        images = read_validation(root, ids, name=DATA, per_class=card.per_class, numbered=card.numbered)
        transform = validation_transform(model, settings.image_size)
        label = dict(zip(images.paths, images.labels.tolist(), strict=True))
        batches = _batches(ctx, images, transform, settings)
        rows = pd.DataFrame(classify_batches(batches, label, answer_with(model, outputs, DATA), ctx.progress))
        rows["outputs"], rows["head"], rows["outside"] = len(ids), len(model.classes), images.outside
        rows["transform"] = str(transform)
        return rows

    def score(self, rows: pd.DataFrame, item: Item, settings: SuppressionSettings, cards: Mapping[str, Any]) -> Score:
        """Return curves, their means and the validity checks."""
        from dataclasses import replace

        from suites.bias.cues import score

        used, head, outside = (int(rows[column].iloc[0]) for column in ("outputs", "head", "outside"))
        found = score(rows, used, "" if used == head else f"@{used}of{head}")
        transform = str(rows["transform"].iloc[0])
        notes = [f"logits restricted to the {used} classes of the images"] if used < head else []
        own = not self.protocol(settings).startswith(transform)
        notes += [f"the checkpoint's own transform: {transform}"] if own else []
        notes += [f"{outside} images of classes the head does not have were left out"] if outside else []
        return replace(found, notes=tuple(notes))

    def units(
        self,
        rows: pd.DataFrame,
        item: Item,
        settings: SuppressionSettings,
        cards: Mapping[str, Any],
        names: Sequence[str],
    ) -> tuple[Units, ...]:
        """Return validation images for paired comparisons of the means of curves."""
        from suites.bias.cues import curve_units

        return curve_units(rows, names)


def _batches(ctx: Context, images: Any, transform: Any, settings: SuppressionSettings) -> Iterator[Batch]:
    """Return the suppressed images; those of a small data set are made once per worker, as they are the same for every network."""
    from harness.api import content_key
    from suites.bias.cues import suppressed_batches

    levels = settings.levels()
    made = suppressed_batches(_pictures(images, transform, settings), levels, settings.threads)
    if len(images.paths) * 3 * transform.crop**2 * sum(1 + len(chosen) for chosen in levels.values()) > _PICTURES_KEPT:
        return made
    facts = [ctx.sources[DATA].data_hash, list(images.paths), str(transform), settings.model_dump(mode="json")]
    key = content_key(facts)
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = list(made)
    return iter(_KEPT[key])


def _pictures(images: Any, transform: Any, settings: SuppressionSettings) -> Iterator[tuple[Sequence[str], Picture]]:
    """Yield names and 8-bit pictures (B, H, W, 3) as the network is given them."""
    import numpy as np

    from suites.transfer.features import image_batches

    done = 0
    for pixels, _ in image_batches(images.root, images.paths, transform, batch_size=settings.batch_size,
                                   workers=settings.threads, complete=False, read=images.read):  # fmt: skip
        names = images.paths[done : done + len(pixels)]
        done += len(pixels)
        yield names, np.ascontiguousarray(np.rint(pixels * 255).astype(np.uint8).transpose(0, 2, 3, 1))
