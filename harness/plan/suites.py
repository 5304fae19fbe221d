"""The cells that measure: a suite's evaluations and the features they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.code import code_hash
from harness.core.settings import Settings, parse_settings
from harness.plan.datasets import dataset_inputs
from harness.plan.model import PlannedSubject
from harness.plugins.border import planned_items, plugin_errors
from harness.plugins.code import rows_code, score_code
from harness.plugins.common import DerivedInput
from harness.plugins.suite import Item, NotPlanned, Suite
from harness.store.cells import Cell

if TYPE_CHECKING:
    from harness.plan.builder import Builder

EMBEDDED = "micro"
"""The profile whose data sets are written by this software."""


def measured(
    builder: Builder, suite: Suite, subject: PlannedSubject, dataset: Cell | None = None, *, asked: bool = False
) -> None:
    """Add a suite's evaluations of a classifier, or of a dataset; note what is not run and why, and whether it was ``asked`` for."""
    card = suite.card
    if subject.baseline not in ("", "untrained", *card.baselines):
        builder.plan.skip(f"{card.id} of {subject.generator}", "it needs a network", False)
        return
    settings = parse_settings(suite.Settings, builder.profile.suites.get(card.id, {}), card.id)
    try:
        items = _items(suite, settings, subject)
    except NotPlanned as reason:
        builder.plan.skip(
            f"{card.id} of {subject.arch}", str(reason), asked and (subject.logits_only or subject.features_only)
        )
        return
    size = _other_size(suite, settings, subject)
    for item in items:
        missing = [name for name in item.data if not builder.find(name)]
        if missing:
            builder.plan.skip(card.id, builder.why_missing(missing[0]), asked)
            continue
        unreadable = [builder.why_unreadable(name, suite.layout_checks.get(name, "")) for name in item.data]
        if any(unreadable):
            builder.plan.skip(card.id, next(filter(None, unreadable)), asked)
            continue
        warnings = tuple(filter(None, [size, _other_profile(builder, item.data)]))
        for warning in warnings:
            builder.plan.warn(warning)
        _evaluate(builder, suite, settings, item, subject, dataset, warnings)


def _items(suite: Suite[Any], settings: Settings, subject: PlannedSubject) -> Sequence[Item]:
    """Return the evaluations of a classifier.

    Raises:
        NotPlanned: the suite does not measure the architecture, or wants more than the logits, or the features, that the subject
            gives.
    """
    if not (subject.logits_only or subject.features_only):
        return planned_items(suite, settings, subject.arch)
    of_logits = _items_of_logits(suite, settings)
    if subject.logits_only and not of_logits:
        raise NotPlanned(f"{suite.card.id} reads features or weights, and {subject.generator} gives logits only")
    if subject.features_only and of_logits:
        raise NotPlanned(
            f"{suite.card.id} reads logits, and the file of {subject.generator} has no classifier head: it gives features only"
        )
    return of_logits if subject.logits_only else planned_items(suite, settings, subject.arch)


def _items_of_logits(suite: Suite[Any], settings: Settings) -> Sequence[Item]:
    """Return the evaluations of a classifier of which nothing is known but its logits; empty if these are not enough."""
    try:
        items = planned_items(suite, settings, "")  # no architecture is known of it: the word stands for its class only
    except NotPlanned:
        return ()
    return () if any(item.derived_inputs for item in items) else items


def _other_size(suite: Suite, settings: Settings, subject: PlannedSubject) -> str:
    """Say so where a suite feeds a checkpoint from outside with images of another size than the checkpoint states."""
    size = getattr(settings, "image_size", 0)
    if not subject.image_size or size in (0, subject.image_size) or suite.own_size:
        return ""
    return (
        f"{suite.card.id} feeds images of {size} px instead of the {subject.image_size} that the checkpoint states "
        f"(--set suites.{suite.card.id}.image_size={subject.image_size} follows it)"
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
    subject: PlannedSubject,
    dataset: Cell | None,
    warnings: tuple[str, ...],
) -> None:
    card, values = suite.card, settings.model_dump(mode="json")
    measured_on = dataset_inputs(dataset) if dataset is not None else {"checkpoint": subject.cell.key}
    inputs = measured_on if item.checkpoint or dataset is not None else {}
    params = {
        "settings": values,
        "item": item.label,
        "item_params": item.params,
        "classes": subject.classes.key(),
        "subject": _facts(builder, subject, dataset),
        "arch": "" if dataset is not None else subject.arch,
        **builder.data_hashes(item.data),
        **builder.model_hashes(suite.sources, values),
        **({"warnings": warnings} if warnings else {}),
    }
    with plugin_errors(suite):
        cost = suite.cost(item, settings, {name: source.card for name, source in builder.found(item.data).items()})
    builder.plan.add(
        Cell(
            "evaluate",
            card.id,
            card.version,
            params,
            inputs | {need.role: _extract(builder, need, subject, measured_on).key for need in item.derived_inputs},
            {"probe_seed": item.probe_seed},
            "harness.run.tasks:evaluate",
            f"{subject.generator} {subject.arch} {card.id} {item.label}",
            item.data,
            (),
            builder.expected("evaluate", card.id, item.resources),
            rows_code(suite, values),
            cost,
            score_code(suite),
        )
    )


def _extract(builder: Builder, need: DerivedInput, subject: PlannedSubject, inputs: dict[str, str]) -> Cell:
    return builder.plan.add(
        Cell(
            "extract",
            need.name,
            need.version,
            {**need.params, **builder.data_hashes(need.data), "classes": subject.classes.key()},
            inputs,
            callable_path=need.callable_path,
            label=f"{need.name} {subject.cell.label}",
            data=need.data,
            code_hash=code_hash(need.callable_path),
            resources=builder.expected("extract", need.name, need.resources),
        )
    )


def _facts(builder: Builder, subject: PlannedSubject, dataset: Cell | None) -> dict[str, Any]:
    """Return whom a record is about; of a dataset's own measurement nothing of a backbone."""
    of_dataset = dataset is not None
    return {
        "generator": subject.generator,
        "backbone": "-" if of_dataset else "baseline" if subject.baseline else subject.arch,
        "generator_seed": subject.generator_seed,
        "train_seed": 0 if of_dataset else subject.train_seed,
        "information": subject.information,
        "profile": builder.profile.name,
        "recipe": "" if of_dataset else subject.recipe,
        "class_list": subject.classes.ids_hash[:16],
    }
