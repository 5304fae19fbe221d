"""The cells that measure: a suite's evaluations and the features they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.plan.model import Trained
from harness.plan.profile import parse_settings
from harness.plugins import registry
from harness.plugins.contracts import Item, Need, NotPlanned, Settings, Suite
from harness.store.cells import Cell

if TYPE_CHECKING:
    from harness.plan.planner import Planner

EMBEDDED = "micro"
"""The profile whose data sets are written by this software."""


def measured(planner: Planner, suite: Suite, trained: Trained, dataset: Cell | None = None) -> None:
    """Add a suite's evaluations of a classifier, or of a dataset; notes what is not run and why."""
    card = suite.card
    if trained.baseline not in ("", "untrained", *card.baselines):
        planner.plan.skip(f"{card.id} of {trained.generator}", "it needs a network", False)
        return
    settings = parse_settings(suite.Settings, planner.profile.suites.get(card.id, {}), card.id)
    asked = card.id in planner.suites_asked
    try:
        items: Sequence[Item] = suite.items(settings, trained.arch)
    except NotPlanned as reason:
        planner.plan.skip(f"{card.id} of {trained.arch}", str(reason), False)
        return
    size = _other_size(suite, settings, trained)
    for item in items:
        missing = [name for name in item.data if not planner.find(name)]
        if missing:
            planner.plan.skip(card.id, planner.why_missing(missing[0]), asked)
            continue
        warnings = tuple(filter(None, [size, _other_profile(planner, item.data)]))
        for warning in warnings:
            planner.plan.warn(warning)
        _evaluate(planner, suite, settings, item, trained, dataset, warnings)


def _other_size(suite: Suite, settings: Settings, trained: Trained) -> str:
    """Say so where a suite feeds a checkpoint from outside with images of another size than the checkpoint states."""
    size = getattr(settings, "image_size", 0)
    if not trained.image_size or size in (0, trained.image_size) or suite.own_size:
        return ""
    return (
        f"{suite.card.id} feeds images of {size} px instead of the {trained.image_size} that the checkpoint states "
        f"(--set suites.{suite.card.id}.image_size={trained.image_size} follows it)"
    )


def _other_profile(planner: Planner, names: Sequence[str]) -> str:
    """Say so where data of the user's own are measured under the profile that is sized for the embedded ones."""
    own = [name for name, source in planner.found(names).items() if not source.writer]
    if planner.profile.name != EMBEDDED or not own or planner.assume:
        return ""
    return (
        f"{', '.join(own)}: measured under profile {EMBEDDED}, which is sized for 64-pixel images, instead of --profile in100 "
        "or in1k"
    )


def _evaluate(
    planner: Planner,
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
        "subject": _facts(planner, trained, dataset),
        "arch": "" if dataset is not None else trained.arch,
        **planner.marks(item.data),
        **planner.sources(suite.sources, values),
        **({"warnings": warnings} if warnings else {}),
    }
    planner.plan.add(
        Cell(
            "evaluate",
            card.id,
            card.version,
            params,
            inputs | {need.role: _extract(planner, need, trained, subject, told).key for need in item.needs},
            {"probe_seed": item.probe_seed},
            "harness.run.tasks:evaluate",
            f"{trained.generator} {trained.arch} {card.id} {item.label}",
            item.data,
            (),
            planner.expected("evaluate", card.id, item.resources),
            registry.plugin_fingerprint(suite),
            suite.cost(item, settings, {name: source.card for name, source in planner.found(item.data).items()}),
        )
    )


def _extract(planner: Planner, need: Need, trained: Trained, subject: dict[str, str], told: dict[str, str]) -> Cell:
    return planner.plan.add(
        Cell(
            "extract",
            need.name,
            need.version,
            {**need.params, **planner.marks(need.data), "classes": told},
            subject,
            work=need.work,
            label=f"{need.name} {trained.cell.label}",
            data=need.data,
            fingerprint=registry.work_fingerprint(need.work),
            resources=planner.expected("extract", need.name, need.resources),
        )
    )


def _facts(planner: Planner, trained: Trained, dataset: Cell | None) -> dict[str, Any]:
    """Return whom a record is about; of a dataset's own measurement nothing of a backbone."""
    of_dataset = dataset is not None
    return {
        "generator": trained.generator,
        "backbone": "-" if of_dataset else "baseline" if trained.baseline else trained.arch,
        "generator_seed": trained.generator_seed,
        "train_seed": 0 if of_dataset else trained.train_seed,
        "information": trained.information,
        "profile": planner.profile.name,
        "recipe": "" if of_dataset else trained.recipe,
        "class_list": trained.classes.fingerprint[:16],
    }
