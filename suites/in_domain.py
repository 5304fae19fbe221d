"""Suite `in-domain`: top-1 on validation images of the classes the backbone was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.api import (
    ColumnKind,
    Context,
    Item,
    Metric,
    Score,
    Settings,
    Suite,
    SuiteCard,
    Units,
    UserError,
    classifier,
)

if TYPE_CHECKING:
    import pandas as pd

    from suites.transfer.transforms import EvalTransform

DATA = "in-val"


class InDomainSettings(Settings):
    """Settings of the in-domain evaluation."""

    image_size: int = Field(224, ge=8)
    """Side of the crop; the shorter side is resized to this over 0.875 (256 for 224). A checkpoint from outside has its own
    side (--image-size), crop ratio and interpolation."""
    batch_size: int = Field(128, ge=1)
    threads: int = Field(1, ge=1)
    """Decoding threads."""


class ValidationCard(BaseModel):
    """What is expected of the validation images; the defaults are ImageNet's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_class: int | None = 50
    """Images of each class; null accepts any number. Other numbers than ImageNet's are noted in the record."""
    classes: str = ""
    """Class list of the images (a shipped name or a file); empty: ImageNet-100 where the class folders are its, else that
    of the head."""
    numbered: str = ""
    """Class list that folders or labels count which are numbers (ImageNet-V2 needs none, nor files that state their names)."""


class InDomain(Suite[InDomainSettings]):
    """Classify validation images with the backbone's own head; one row per image."""

    card = SuiteCard(
        id="in-domain",
        version=2,
        summary="Accuracy on real validation images of the training classes.",
        formula="top-1 = share of validation images whose largest logit is their class",
        metrics={
            "top1": "share of validation images whose largest logit is their class",
            "mean_per_class": "mean over classes of the accuracy within each class",
        },
        conventions=(
            "shorter side 256, centre crop 224 (bicubic): not the probe's transform",
            "a checkpoint from outside is measured at its own size, crop ratio and interpolation, which the record notes",
            "the last weights are measured, never the best epoch on these images",
            "labels are class ids, whatever the order of the head's outputs; flat ILSVRC archives are mapped through the devkit",
            "a head with more classes than the images is restricted to the images' classes, and the metric says so: "
            "top1@100of1000 of a 1000-way head on ImageNet-100 (class folders of that list, or named by the card's 'classes')",
        ),
        citation="lbGen, CVPR 2025, Tables 1 and 4; evaluation of ConvNeXt (Liu et al., CVPR 2022)",
        order=100,
        sources=(
            "numbers: lbGen, CVPR 2025, Tables 1 and 4; transform and score: released evaluation code of ConvNeXt",
            "ImageNet-100: the list published with CMC; several other lists of that name circulate (compare the hash)",
        ),
        known_disagreements=(
            "the ConvNeXt script reports the best epoch on the validation images; for synthetic training data that would be "
            "selection on real images, so the last weights are measured here",
            "Table 6 calls the validation images test sets of 50,000 and 5,000",
        ),
        data=(DATA,),
    )
    Settings = InDomainSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {"item": "text", "label": "integer", "predicted": "integer"}
    row_key = ("item",)
    own_size = True
    data_inspectors: ClassVar[Mapping[str, str]] = {DATA: "suites.transfer.inspect:validation"}
    origins: ClassVar[Mapping[str, str]] = {DATA: "ILSVRC 2012 validation images and devkit, image-net.org"}

    def protocol(self, settings: InDomainSettings) -> str:
        """Say how images reach the network."""
        from suites.transfer.transforms import eval_transform

        return f"{eval_transform(settings.image_size)}, of a checkpoint from outside its own transform; last epoch"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per validation image."""
        from suites.imagefolder import read_validation, unpublished_counts
        from suites.transfer.stages import classify

        settings = ctx.settings(InDomainSettings)
        model = classifier(ctx)
        card = ValidationCard.model_validate(dict(ctx.card(DATA)))
        root = ctx.data(DATA)
        ids, outputs = _outputs(tuple(model.classes), card, root)
        images = read_validation(root, ids, name=DATA, per_class=card.per_class, numbered=card.numbered)
        transform = _transform(model, settings)
        rows = classify(
            model,
            images.root,
            images.paths,
            images.labels,
            transform,
            outputs,
            batch_size=settings.batch_size,
            workers=settings.threads,
            progress=ctx.progress,
            name=DATA,
            read=images.read,
        )
        if counts := unpublished_counts(images.labels, ids):
            rows["counts"] = counts
        rows["outputs"], rows["head"], rows["outside"] = len(ids), len(model.classes), images.outside
        rows["transform"] = str(transform)
        return rows

    def score(self, rows: pd.DataFrame, item: Item, settings: InDomainSettings, cards: Mapping[str, Any]) -> Score:
        """Return top-1 and mean-per-class."""
        from suites.transfer.metrics import mean_per_class, top1

        columns = [rows[column].to_numpy() for column in ("label", "predicted")]
        used, head, outside = (int(rows[column].iloc[0]) for column in ("outputs", "head", "outside"))
        name = "top1" if used == head else f"top1@{used}of{head}"
        notes = [f"logits restricted to the {used} classes of the images"] if used < head else []
        transform = str(rows["transform"].iloc[0]) if "transform" in rows else ""
        own = not self.protocol(settings).startswith(transform)
        notes += [f"the checkpoint's own transform: {transform}"] if own else []
        notes += [f"{outside} images of classes the head does not have were left out"] if outside else []
        notes += [str(rows["counts"].iloc[0])] if "counts" in rows else []
        damaged = rows[rows["state"] != "ok"]
        notes += [f"{len(damaged)} damaged file(s), first {damaged['item'].iloc[0]}"] if len(damaged) else []
        return Score(
            (Metric(name, top1(*columns)), Metric("mean_per_class", mean_per_class(*columns), role="companion")),
            notes=tuple(notes),
        )

    def units(
        self, rows: pd.DataFrame, item: Item, settings: InDomainSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return validation images for paired comparisons of top-1."""
        from harness.api import flag_units

        correct = rows["label"].to_numpy() == rows["predicted"].to_numpy()
        return tuple(flag_units(name, rows["item"], correct) for name in names if name.startswith("top1"))


def _transform(model: Any, settings: InDomainSettings) -> EvalTransform:
    """Return the protocol's transform, or that of a checkpoint from outside."""
    from suites.transfer.transforms import eval_transform

    info = getattr(model, "info", None)
    if info is None or not info.outside:
        return eval_transform(settings.image_size)
    return eval_transform(info.image_size, info.crop, info.interpolation)


def _outputs(head: tuple[str, ...], card: ValidationCard, root: Path) -> tuple[tuple[str, ...], list[int]]:
    """Return the classes to be distinguished, in the order of the head, and the outputs that stand for them."""
    from harness.api import coverage, load_classes
    from suites.imagefolder import listed_classes

    listed = load_classes(card.classes) if card.classes else listed_classes(root)
    found = coverage(head, listed.ids)
    if not card.classes and not (found.complete and len(listed) < len(head)):
        found = coverage(head, head)
    if len(found.outputs) < 2:
        raise UserError(
            f"{DATA}: the head knows {len(found.outputs)} of the images' classes",
            f"the images have the classes of {card.classes}; the head's list begins with {head[0]}",
            "use validation images of the classes the backbone was trained on",
        )
    outputs = sorted(found.outputs)
    return tuple(head[i] for i in outputs), outputs
