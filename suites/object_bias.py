"""Suite `object-bias`: what the usual size and place of a class are worth, on ImageNet-9 or COCO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.api import ColumnKind, Context, Item, Score, Suite, SuiteCard, Units, classifier
from suites.bias.settings import BiasSettings

if TYPE_CHECKING:
    import pandas as pd


class ObjectSettings(BiasSettings):
    """Settings of the object suite."""

    data: Literal["in9", "objects", "coco"] = Field(
        default="in9",
        description="data set: in9, the backgrounds challenge; objects, another set in its layout; or coco, the boxes of COCO's "
        "validation pictures",
    )


class ObjectBias(Suite[ObjectSettings]):
    """Recognise objects of usual and unusual size and place; one row per image."""

    card = SuiteCard(
        id="object-bias",
        version=1,
        summary="Are size and place of the object read? Accuracy where a class has its usual size or place, and where not.",
        formula="size_gap = 100 * g of accuracy(class, size) = class + size + g [size is the class's usual one], by least squares "
        "over classes and thirds of size; position_gap likewise; percentage points, lower is better",
        metrics={
            "size_gap": "points of accuracy that the usual size of its class is worth to an image, beyond what class and size are "
            "worth by themselves; read with accuracy",
            "position_gap": "the same of the usual third of height in the picture",
            "accuracy": "accuracy on the original images",
            "accuracy_small": "accuracy on the third of the images with the smallest objects; likewise medium, large",
            "accuracy_medium": "accuracy on the middle third by size",
            "accuracy_large": "accuracy on the third of the images with the largest objects",
            "accuracy_upper": "accuracy on the third of the images whose objects stand highest; likewise middle, lower",
            "accuracy_middle": "accuracy on the middle third by height",
            "accuracy_lower": "accuracy on the third of the images whose objects stand lowest",
        },
        conventions=(
            "answer: top-1 class over all outputs, looked up in the class map, as in background-bias; original images",
            "object: box around its mask in fg_mask, where the archive has it, else around what only_fg leaves (brighter than 16 of "
            "255); size: square root of its share of the picture; "
            "position: vertical centre. Sideways is not looked at: training mirrors pictures",
            "data=coco: validation pictures that show exactly one of the sixteen categories of texture-bias (crowds apart); the largest "
            "box, of which at least half lies in the centre square that the network sees, measured there; class map of texture-bias",
            "size and position classes are thirds of the whole data set; the usual one of a class is that of most of its images there",
            "differences between classes and between sizes are taken out: small objects are harder for every network, and insects are "
            "smaller than trucks; what remains is a class that is recognised better where it usually is",
            "a gap is no proof of a shortcut: unusual pictures of a class may be odd in other ways, too. Compare networks",
            "interval: bootstrap over images within class and size (position); pairs of networks are compared on the same images",
            "not valid below three times chance; never ranked or gated, columns in the view 'bias' of the board",
        ),
        citation="none: a measure of this harness, on the images of Xiao et al., ICLR 2021, or Lin et al., ECCV 2014",
        sources=(
            "images and objects: backgrounds_challenge_data.tar.gz of MadryLab/backgrounds_challenge, variations original and "
            "only_fg, and fg_mask; class map as in background-bias",
            "boxes: instances_val2017.json of COCO 2017; categories that cue-conflict (Geirhos et al., ICLR 2019) took from COCO",
            "calibration: worlds size and position of the command calibrate, on the embedded set objects",
        ),
        order=730,
        data=("in9", "objects", "coco"),
        groups=("instruments",),
        default=False,
    )
    Settings = ObjectSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "image": "text",
        "label": "integer",
        "correct": "flag",
        "size": "number",
        "position": "number",
        "size_class": "text",
        "position_class": "text",
        "usual_size": "flag",
        "usual_position": "flag",
    }
    row_key = ("image",)
    unbounded = ("size_gap*", "position_gap*")
    origins: ClassVar[Mapping[str, str]] = {"objects": "in no publication: written by this software"}

    def items(self, settings: ObjectSettings, arch: str) -> Sequence[Item]:
        """Return the one evaluation, on the data set of the settings."""
        return (Item(self.card.id, (settings.data,)),)

    def protocol(self, settings: ObjectSettings) -> str:
        """Say how images reach the network."""
        how = "shorter side 224, centre crop" if settings.data == "coco" else "images as stored"
        return f"{how}; top-1 over all classes{settings.wording()}"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image."""
        import pandas as pd

        from suites.bias.objects import load_card, predict_rows

        settings = ctx.settings(ObjectSettings)
        card = load_card(settings.data, ctx.card(settings.data))
        return pd.DataFrame(predict_rows(classifier(ctx), ctx.data(settings.data), card, ctx.progress, settings))

    def score(self, rows: pd.DataFrame, item: Item, settings: ObjectSettings, cards: Mapping[str, Any]) -> Score:
        """Return both gaps, accuracies by size and position, and the validity check."""
        from suites.bias.objects import load_card, score

        return score(rows, load_card(settings.data, cards.get(settings.data)))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: ObjectSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return images for paired comparisons of both gaps."""
        from suites.bias.objects import LEVELS, gap_units

        gaps = {f"{factor}_gap" for factor in LEVELS}
        return tuple(gap_units(rows, name) for name in names if name.partition("@")[0] in gaps)
