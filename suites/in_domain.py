"""Suite `in-domain`: top-1 on validation images of the classes the backbone was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
            "calibration_error": "sqrt(sum over bins of n_b / n * g_b^2), g_b^2: mean over pairs of different images of a bin of the "
            "product of their (confidence - correct), correct 0 or 1; 15 bins of equal count, 0 where the sum is negative",
            "overconfidence": "100 * (mean confidence - accuracy), percentage points; negative where the network is too modest",
            "aurc": "area under the risk-coverage curve: mean over images of the error among the images at least as confident",
            "accuracy_at_80": "accuracy on the 80 % of images with the highest confidence",
        },
        conventions=(
            "shorter side 256, centre crop 224 (bicubic): not the probe's transform",
            "a checkpoint from outside is measured at its own size, crop ratio and interpolation, which the record notes",
            "the last weights are measured, never the best epoch on these images",
            "confidence: softmax probability of the prediction among the classes of the images; no temperature is fitted",
            "calibration error: debiased, so 0 is possible and noise does not add to it; bins have 20 images or more, equal "
            "confidences share a bin; interval by inverting a normal test. Training with mixup or label smoothing makes modest "
            "networks, which the sign of overconfidence shows",
            "calibration and selective accuracy stand in the view 'bias' of the board and are never ranked or gated; rows of older "
            "versions hold no confidences, and these metrics are undefined there",
            "labels are class ids, whatever the order of the head's outputs; flat ILSVRC archives are mapped through the devkit",
            "a head with more classes than the images is restricted to the images' classes, and the metric says so: "
            "top1@100of1000 of a 1000-way head on ImageNet-100 (class folders of that list, or named by the card's 'classes')",
        ),
        citation="lbGen, CVPR 2025, Tables 1 and 4; evaluation of ConvNeXt (Liu et al., CVPR 2022)",
        order=100,
        sources=(
            "numbers: lbGen, CVPR 2025, Tables 1 and 4; transform and score: released evaluation code of ConvNeXt",
            "calibration error: Kumar, Liang and Ma, NeurIPS 2019; its interval after Sun et al. 2024, arXiv 2408.08998; selective "
            "accuracy: Geifman and El-Yaniv, NeurIPS 2017",
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
    layout_checks: ClassVar[Mapping[str, str]] = {DATA: "suites.transfer.inspect:validation_layout"}
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
        ids, outputs = validation_outputs(tuple(model.classes), card, root)
        images = read_validation(root, ids, name=DATA, per_class=card.per_class, numbered=card.numbered)
        transform = validation_transform(model, settings.image_size)
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
        per_class = Metric("mean_per_class", mean_per_class(*columns), role="companion")
        second = _confidence_metrics(rows, name.removeprefix("top1"))
        return Score((Metric(name, top1(*columns)), per_class, *second), notes=tuple(notes))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: InDomainSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return validation images for paired comparisons of top-1, and of what confidences say."""
        from harness.api import flag_units

        correct = rows["label"].to_numpy() == rows["predicted"].to_numpy()
        found = tuple(flag_units(name, rows["item"], correct) for name in names if name.startswith("top1"))
        return found + (_confidence_units(rows, names) if "confidence" in rows else ())


SECONDARY: Mapping[str, Literal["lower", "higher", "neither"]] = {
    "calibration_error": "lower", "overconfidence": "neither", "aurc": "lower", "accuracy_at_80": "higher",
}  # fmt: skip


def _confidence_metrics(rows: pd.DataFrame, coverage: str) -> tuple[Metric, ...]:
    """Return what confidences say, under names that carry the coverage of a restricted head."""
    from harness.api import undefined
    from suites.transfer import confidence

    if "confidence" in rows:
        both = rows["confidence"].to_numpy(), rows["label"].to_numpy() == rows["predicted"].to_numpy()
        found = {
            "calibration_error": confidence.calibration_error(*both),
            "overconfidence": confidence.overconfidence(*both).scaled(100),
            "aurc": confidence.area_under_risk_coverage(*both).estimate,
            "accuracy_at_80": confidence.accuracy_at(*both).estimate,
        }
    else:
        why = "the rows hold no confidences: an older version measured them; run the suite again"
        found = dict.fromkeys(SECONDARY, undefined(why, population=confidence.POPULATION))
    return tuple(Metric(f"{name}{coverage}", found[name], "points" if name == "overconfidence" else "fraction", better, "secondary")
                 for name, better in SECONDARY.items())  # fmt: skip


def _confidence_units(rows: pd.DataFrame, names: Sequence[str]) -> tuple[Units, ...]:
    """Return validation images with their pseudo-values, whose mean is the metric; a calibration error has none."""
    import numpy as np

    from suites.transfer import confidence

    both = rows["confidence"].to_numpy(), (rows["label"] == rows["predicted"]).to_numpy()
    area, selective = confidence.area_under_risk_coverage(*both), confidence.accuracy_at(*both)
    values = {"overconfidence": both[0] - both[1], "aurc": area.pseudo, "accuracy_at_80": selective.pseudo}
    ids, ones = tuple(map(str, rows["item"])), np.ones(len(rows))
    return tuple(Units(name, "share", ids, np.zeros(len(ids), dtype=np.int64), np.stack([values[plain], ones], axis=1),
                       100.0 if plain == "overconfidence" else 1.0)
                 for name in names if (plain := name.partition("@")[0]) in values)  # fmt: skip


def validation_transform(model: Any, image_size: int) -> EvalTransform:
    """Return the protocol's transform at a size in pixels, or that of a checkpoint from outside."""
    from suites.transfer.transforms import eval_transform

    info = getattr(model, "info", None)
    if info is None or not info.outside:
        return eval_transform(image_size)
    return eval_transform(info.image_size, info.crop, info.interpolation)


def validation_outputs(head: tuple[str, ...], card: ValidationCard, root: Path) -> tuple[tuple[str, ...], list[int]]:
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
