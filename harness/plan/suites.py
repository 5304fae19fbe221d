"""The cells that measure: a suite's evaluations and the features they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.code import work_fingerprint
from harness.core.settings import Settings, parse_settings
from harness.plan.model import Trained
from harness.plugins import registry
from harness.plugins.common import Need
from harness.plugins.suite import Item, NotPlanned, Suite
from harness.store.cells import Cell

if TYPE_CHECKING:
    from harness.plan.builder import Builder

EMBEDDED = "micro"
"""The profile whose data sets are written by this software."""


def measured(
    builder: Builder, suite: Suite, trained: Trained, dataset: Cell | None = None, *, asked: bool = False
) -> None:
    """Add a suite's evaluations of a classifier, or of a dataset; note what is not run and why, and whether it was ``asked`` for."""
    card = suite.card
    if trained.baseline not in ("", "untrained", *card.baselines):
        builder.plan.skip(f"{card.id} of {trained.generator}", "it needs a network", False)
        return
    settings = parse_settings(suite.Settings, builder.profile.suites.get(card.id, {}), card.id)
    try:
        items: Sequence[Item] = suite.items(settings, trained.arch)
    except NotPlanned as reason:
        builder.plan.skip(f"{card.id} of {trained.arch}", str(reason), False)
        return
    size = _other_size(suite, settings, trained)
    for item in items:
        missing = [name for name in item.data if not builder.find(name)]
        if missing:
            builder.plan.skip(card.id, builder.why_missing(missing[0]), asked)
            continue
        warnings = tuple(filter(None, [size, _other_profile(builder, item.data)]))
        for warning in warnings:
            builder.plan.warn(warning)
        _evaluate(builder, suite, settings, item, trained, dataset, warnings)


def _other_size(suite: Suite, settings: Settings, trained: Trained) -> str:
    """Say so where a suite feeds a checkpoint from outside with images of another size than the checkpoint states."""
    size = getattr(settings, "image_size", 0)
    if not trained.image_size or size in (0, trained.image_size) or suite.own_size:
        return ""
    return (
        f"{suite.card.id} feeds images of {size} px instead of the {trained.image_size} that the checkpoint states "
        f"(--set suites.{suite.card.id}.image_size={trained.image_size} follows it)"
    )


def _other_profile(builder: Builder, names: Sequence[str]) -> str:
    """Say so where data of the user's own are measured under the profile that is sized for the embedded ones."""
    own = [name for name, source in builder.found(names).items() if not source.writer]
    if builder.profile.name != EMBEDDED or not own or builder.assume:
        return ""
    return (
        f"{', '.join(own)}: measured under profile {EMBEDDED}, which is sized for 64-pixel images, instead of --profile in100 "
        "or in1k"
    )


def _evaluate(
    builder: Builder,
    suite: Suite,
    settings: Settings,
    item: Item,
    trained: Trained,
    dataset: Cell | None,
    warnings: tuple[str, ...],
) -> None:
    card, values = suite.card, settings.model_dump(mode="json")
    told = {"name": trained.classes.name, "content": trained.classes.content}
    subject = {"dataset": dataset.key} if dataset is not None else {"checkpoint": trained.cell.key}
    inputs = subject if item.checkpoint or dataset is not None else {}
    params = {
        "settings": values,
        "item": item.label,
        "item_params": item.params,
        "classes": told,
        "subject": _facts(builder, trained, dataset),
        "arch": "" if dataset is not None else trained.arch,
        **builder.data_hashes(item.data),
        **builder.model_hashes(suite.sources, values),
        **({"warnings": warnings} if warnings else {}),
    }
    builder.plan.add(
        Cell(
            "evaluate",
            card.id,
            card.version,
            params,
            inputs | {need.role: _extract(builder, need, trained, subject, told).key for need in item.needs},
            {"probe_seed": item.probe_seed},
            "harness.run.tasks:evaluate",
            f"{trained.generator} {trained.arch} {card.id} {item.label}",
            item.data,
            (),
            builder.expected("evaluate", card.id, item.resources),
            registry.plugin_fingerprint(suite),
            suite.cost(item, settings, {name: source.card for name, source in builder.found(item.data).items()}),
        )
    )


def _extract(builder: Builder, need: Need, trained: Trained, subject: dict[str, str], told: dict[str, str]) -> Cell:
    return builder.plan.add(
        Cell(
            "extract",
            need.name,
            need.version,
            {**need.params, **builder.data_hashes(need.data), "classes": told},
            subject,
            work=need.work,
            label=f"{need.name} {trained.cell.label}",
            data=need.data,
            fingerprint=work_fingerprint(need.work),
            resources=builder.expected("extract", need.name, need.resources),
        )
    )


def _facts(builder: Builder, trained: Trained, dataset: Cell | None) -> dict[str, Any]:
    """Return whom a record is about; of a dataset's own measurement nothing of a backbone."""
    of_dataset = dataset is not None
    return {
        "generator": trained.generator,
        "backbone": "-" if of_dataset else "baseline" if trained.baseline else trained.arch,
        "generator_seed": trained.generator_seed,
        "train_seed": 0 if of_dataset else trained.train_seed,
        "information": trained.information,
        "profile": builder.profile.name,
        "recipe": "" if of_dataset else trained.recipe,
        "class_list": trained.classes.fingerprint[:16],
    }
