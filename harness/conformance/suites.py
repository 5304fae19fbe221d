"""Conformance of a suite, measured on an untrained backbone (or on images): same rows, sound numbers, declared data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.backbones.preprocessing import Preprocessing
from harness.conformance.common import (
    borrow,
    closure,
    data_roots,
    do_here,
    make_plan,
    run_cells,
    selection_of,
    sized,
    without_data,
)
from harness.conformance.outcome import Outcome, failed, guard, judge, passed
from harness.conformance.watch import opened, touched
from harness.core.errors import DataMissing
from harness.plan.model import ExternalCheckpoint, Plan, Selection
from harness.plan.profile import Profile
from harness.plugins.suite import Suite
from harness.run.scoring import CARDS, RECORD, ROWS, score_rows
from harness.store.artifacts import MANIFEST, Store
from harness.store.cells import Cell
from harness.store.records import Record


def check_suite(
    suite: Suite, profile: Profile, images: int, items: int, generator: str, root: Path
) -> Iterator[Outcome]:
    """Yield the outcomes of all checks of a suite; its artifacts are kept below ``root``."""
    selection = _selection(suite, sized(profile, images, images), generator, root)
    plan = make_plan(selection)
    cells = [cell for cell in plan.cells.values() if cell.kind == "evaluate"][:items]
    if not cells:
        reason = plan.not_run[0].reason if plan.not_run else "it plans no evaluation"
        raise DataMissing(f"{suite.card.id} cannot be checked", reason, "give the data with --data or another profile")
    store = Store(root / "workers")
    report = run_cells(plan, closure(plan, cells), store)
    if report.failures:
        first = report.failures[0]
        yield failed("measures", f"{first.what}: {first.why}", f"{first.fix}; log: {first.log}")
        return
    count = sum(len(_table(store, cell)) for cell in cells)
    yield passed(
        "measures", f"{len(cells)} evaluations, {count} rows, {sum(report.cpu_seconds.values()):.0f} CPU-seconds"
    )
    yield _numbers(store, cells)
    yield from guard("batch and workers", _again(suite, profile, plan, cells, store, root))
    yield from guard("score is pure", _order(cells, store))
    yield _missing(suite, selection)


def _selection(suite: Suite, profile: Profile, generator: str, root: Path) -> Selection:
    """Return images of a generator for a suite of images, and an untrained backbone for any other."""
    if suite.card.subject == "dataset":
        return selection_of(profile, generator, suite.card.id)
    import torch

    from harness.backbones.models import create, size_arguments
    from harness.backbones.recipe import PretrainSettings
    from harness.core.classes import load_classes

    arch = next(iter(profile.backbones))
    recipe = PretrainSettings.from_mapping({"arch": arch, **_recipe(profile, arch)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create(arch, len(load_classes(profile.classes)), **size_arguments(arch, recipe.image_size))
    path = root / "untrained.pth"
    torch.save(model.state_dict(), path)
    outside = ExternalCheckpoint(path, arch, profile.classes, Preprocessing(recipe.mean, recipe.std, recipe.image_size))
    return Selection(profile, "", suite.card.id, external=outside)


def _recipe(profile: Profile, arch: str) -> dict[str, Any]:
    return {key: value for key, value in profile.backbones[arch].items() if key not in ("devices", "threads")}


def _table(store: Store, cell: Cell) -> Any:
    import pandas as pd

    return pd.read_parquet(store.open(cell).path(ROWS))


def _record(store: Store, cell: Cell) -> Record:
    return Record.from_json(store.open(cell).path(RECORD).read_text(encoding="utf-8"))


def _numbers(store: Store, cells: list[Cell]) -> Outcome:
    """Say whether anything was scored; what a metric may hold was checked when it was made (``border.checked_score``)."""
    problems = [f"{cell.label} has no metric" for cell in cells if not _record(store, cell).metrics]
    fix = "return at least one Metric; a value that does not exist is undefined(reason, ...)"
    return judge("numbers", problems, "every metric has a value with n and interval, or a reason", fix)


def _again(
    suite: Suite, profile: Profile, plan: Plan, cells: list[Cell], store: Store, root: Path
) -> Iterator[Outcome]:
    """Measure again in this process, backwards; then stop between rows and record and go on."""
    own = Store(root / "alone")
    with opened() as paths:
        for cell in reversed(cells):
            borrow(own, store, [plan.cells[key] for key in closure(plan, [cell]) if key != cell.key])
            do_here(plan, cell, own)
    problems = [
        f"{name} of {cell.label} has other bytes"
        for cell in cells
        for name in (ROWS, RECORD)
        if store.open(cell).path(name).read_bytes() != own.open(cell).path(name).read_bytes()
    ]
    fix = "derive all randomness from ctx.seed(...), sort whatever is listed, fix batch sizes in the settings"
    yield judge("batch and workers", problems, "measured again in another process and order: the same bytes", fix)
    kept = own.open(cells[0]).path(RECORD).read_bytes()
    folder = own.folder(cells[0])
    for name in (MANIFEST, RECORD):
        (folder / name).unlink()
    do_here(plan, cells[0], own)
    same = own.open(cells[0]).path(RECORD).read_bytes() == kept
    fix = "do not rely on what an earlier attempt left in ctx.out"
    yield judge("resumes", [] if same else ["the record differs"], "stopped before its record: the same record", fix)
    used = touched(paths, data_roots(profile))
    allowed = {name for cell in cells for name in _all_data(plan, cell)}
    problems = [f"it opens {path} of data set {name!r}" for name, path in used.items() if name not in allowed]
    names = ", ".join(sorted(used)) or "none"
    yield judge(
        "declared inputs",
        problems,
        f"data sets opened: {names}, as declared",
        "name data sets in Item.data and card.data",
    )


def _all_data(plan: Plan, cell: Cell) -> set[str]:
    return {*cell.data, *(name for made_by in plan.inputs(cell).values() for name in made_by.data)}


def _order(cells: list[Cell], store: Store) -> Iterator[Outcome]:
    """Score rows in other orders: values are functions of the rows, not of their order."""
    problems = []
    for cell in cells:
        rows, cards = _table(store, cell), store.open(cell).json(CARDS)
        first = _record(store, cell)
        for order, places in _orders(len(rows)).items():
            shuffled = rows.iloc[places].reset_index(drop=True)
            second = score_rows(cell.spec, cell.key, shuffled, cards, {}, {}).record
            for a, b in zip(first.metrics, second.metrics, strict=True):
                x, y = a.estimate.value, b.estimate.value
                if x != y and (x is None or y is None or not math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-9)):
                    problems.append(f"{a.name} is {x} and, with the rows {order}, {y}")
        again = Record.from_json(first.to_json())
        problems += [] if again == first else [f"the record of {cell.label} does not survive JSON"]
    fix = "let score be a pure function of the rows"
    yield judge("score is pure", problems, "the same values from the rows in three other orders", fix)


def _orders(count: int) -> dict[str, list[int]]:
    """Return three orders of some rows: a part of the rows that matters more than others is at a new place in one of them."""
    import random

    shuffled = random.Random(0).sample(range(count), count)
    return {
        "reversed": list(range(count))[::-1],
        "shuffled": shuffled,
        "shuffled, reversed": shuffled[::-1],
    }


def _missing(suite: Suite, selection: Selection) -> Outcome:
    if not suite.card.data:
        return Outcome("says what is missing", "not applicable", "it reads no data set")
    from dataclasses import replace

    bare = make_plan(replace(selection, profile=without_data(selection.profile), generators=selection.generators))
    told = json.dumps([entry.reason for entry in bare.not_run])
    problems = [] if bare.not_run else ["without data it is planned all the same"]
    return judge("says what is missing", problems, f"without data it is not run: {told}", "name data sets in Item.data")
