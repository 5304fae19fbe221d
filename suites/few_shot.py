"""Suite `few-shot`: linear probes on fewer and fewer training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from harness.api import ColumnKind, Context, Item, Resources, Score, Suite, SuiteCard, Units
from suites.transfer.cards import DATASETS, SOURCES
from suites.transfer.settings import TransferSettings, features_need

if TYPE_CHECKING:
    import pandas as pd

    from suites.transfer.fewshot import FewShotResult
    from suites.transfer.stages import FeatureSet

FEW = 4
"""With at most this many images per class twice the seeds are run: single draws say little."""


class FewShotSettings(TransferSettings):
    """Settings of the probes on subsets."""

    fractions: tuple[float, ...] = (1.0, 0.5, 0.2, 0.1)
    shots: tuple[int, ...] = ()
    """Images per class, beside the fractions; such as 1, 2, 4, 8, 16."""

    @field_validator("fractions")
    @classmethod
    def _in_range(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < value <= 1 for value in values):
            raise ValueError("fractions lie in (0, 1]")
        return values

    @field_validator("shots")
    @classmethod
    def _positive(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if any(value < 1 for value in values):
            raise ValueError("at least one image per class is needed")
        return values

    def amounts(self) -> list[tuple[str, dict[str, float | int]]]:
        """Return name and keyword of every amount of training images."""
        found: list[tuple[str, dict[str, float | int]]] = [
            (f"{value:g}", {"fraction": value}) for value in self.fractions
        ]
        return found + [(f"{value}shot", {"shots": value}) for value in self.shots]


class FewShot(Suite[FewShotSettings]):
    """Fit probes on nested subsets of the training images; one row per test image and seed."""

    card = SuiteCard(
        id="few-shot",
        version=3,
        summary="Do the features need many labels? The linear probe on fractions of the training images.",
        formula="top-1 of the probe fitted on max(2, round(f n_c)) images of every class c; the test part stays whole",
        metrics={
            **{
                f"{name}@*": f"top-1 on {name} of a probe fitted on a part of its training images, 0.1: a tenth"
                for name in DATASETS
            },
            "transfer@*": "mean of top-1 over the eight data sets, for one amount of training images",
        },
        conventions=(
            "subsets are stratified, nested, drawn per data set, class and seed, and equal for all backbones",
            "C is chosen inside the subset: a 20 % split, or up to five folds below ten images per class",
            "one image per class leaves nothing to validate on: C comes from the full training part of the same seed",
            f"twice the seeds where a subset holds at most {FEW} images per class",
            "fraction 1 is the linear probe itself, with the toolbox's validation",
            "search grid or tpe30, and where a fit stops: as in the linear probe",
        ),
        citation="lbGen, CVPR 2025, Figure 3",
        order=300,
        sources=SOURCES,
        known_disagreements=(
            "the paper shows this as a figure (Figure 3) without fractions, seeds, sampling rule or numbers",
            "its remark that epochs are kept constant for few images can only concern detection and segmentation",
        ),
        data=DATASETS,
        groups=("transfer",),
    )
    Settings = FewShotSettings
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "item": "text",
        "label": "integer",
        "predicted": "integer",
        "seed": "integer",
    }
    row_key = ("item", "seed")

    def items(self, settings: FewShotSettings, arch: str) -> Sequence[Item]:
        """Return one evaluation per data set and amount."""
        return [
            Item(
                label=f"{name}@{amount}",
                data=(name,),
                params={"dataset": name, "amount": amount, **keyword},
                derived_inputs=(features_need(name, settings),),
                checkpoint=False,
                resources=Resources(
                    devices=0 if settings.solver_device == "cpu" else 1, threads=settings.threads, minutes=0.05
                ),
            )
            for amount, keyword in settings.amounts()
            for name in settings.datasets
        ]

    def protocol(self, settings: FewShotSettings) -> str:
        """Say how features are made and probed."""
        return settings.wording()

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per test image and probe seed."""
        from suites.transfer.splits import membership
        from suites.transfer.stages import load_features, probe_rows, write_search

        settings = ctx.settings(FewShotSettings)
        features = load_features(ctx.inputs["features"])
        base = ctx.cell.seeds["probe_seed"]
        found: dict[int, FewShotResult] = {}
        seeds = settings.probe_seeds
        while len(found) < seeds:
            seed = base + len(found)
            found[seed] = _one(features, settings, ctx.params["item_params"], seed)
            if len(found) == 1 and len(found[base].subset) <= FEW * len(features.train.classes):
                seeds = 2 * settings.probe_seeds
            ctx.progress(len(found), seeds, "probe seeds")
        write_search(
            ctx,
            {seed: one.probe for seed, one in found.items()},
            {seed: {"subset_sha256": membership(features.train.names, one.subset)} for seed, one in found.items()},
        )
        rows = probe_rows(
            features,
            {seed: one.probe for seed, one in found.items()},
            {seed: one.validation for seed, one in found.items()},
        )
        rows["train_images"] = rows["seed"].map({seed: len(one.subset) for seed, one in found.items()})
        return rows

    def score(self, rows: pd.DataFrame, item: Item, settings: FewShotSettings, cards: Mapping[str, Any]) -> Score:
        """Return top-1 and mean-per-class over all probe seeds; the board shows the mean over data sets per amount."""
        from suites.transfer.stages import probe_metrics, probe_notes

        amount = item.params["amount"]
        metrics = probe_metrics(
            rows,
            f"{item.params['dataset']}@{amount}",
            group=f"transfer@{amount}",
            group_size=len(settings.datasets),
            primary=False,
        )
        return Score(metrics, notes=(f"{int(rows['train_images'].iloc[0])} training images", *probe_notes(rows)))

    def units(
        self, rows: pd.DataFrame, item: Item, settings: FewShotSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return test images, averaged over probe seeds, for paired comparisons of top-1."""
        from harness.api import flag_units

        correct = rows["label"].to_numpy() == rows["predicted"].to_numpy()
        own = f"{item.params['dataset']}@{item.params['amount']}"
        return tuple(flag_units(name, rows["item"], correct) for name in names if name == own)


def _one(features: FeatureSet, settings: FewShotSettings, params: Mapping[str, Any], seed: int) -> FewShotResult:
    from dataclasses import replace

    from suites.transfer.fewshot import run_few_shot
    from suites.transfer.stages import probe_settings

    probe, train, test_x = probe_settings(settings), features.train, features.test_x
    if params.get("shots") == 1:
        whole = run_few_shot(train, test_x, probe, seed=seed, fraction=1.0)
        probe = replace(probe, search="fixed", fixed_c=whole.probe.c)
    return run_few_shot(train, test_x, probe, seed=seed, fraction=params.get("fraction"), shots=params.get("shots"))
