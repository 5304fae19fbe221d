"""``plan``: what a run would do, how long it takes, how much disk it needs, and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.core.classes import load_folder_classes
from harness.core.offline import offline
from harness.plan.model import Selection
from harness.plan.models import absent_models
from harness.plan.planner import Planner
from harness.plan.profile import ORIGINALS
from harness.run.session import RunPlan, plan_run
from harness.store.artifacts import State, Store, read_manifest
from harness.store.cells import KINDS, SHOWN_KINDS, Cell

if TYPE_CHECKING:
    from harness.run.executors import Launch


def show_plan(
    selection: Selection, store: Store, as_json: bool, executor: Launch | None = None, device: str = "auto"
) -> bool:
    """Print the plan of a selection against a store, and return whether the code of every plugin could be planned.

    With an executor, also what that would ask for.
    """
    found = plan_run(selection, store)
    measured = _measured(store, found)
    rows = _rows(found, measured)
    costs = _costs(found)
    facts = {
        "profile": selection.profile.name,
        "kinds": rows,
        "costs": costs,
        "notes": found.plan.notes,
        "warnings": found.plan.warnings,
        "not_run": [{"what": entry.what, "reason": entry.reason} for entry in found.plan.not_run],
        "sizes": _sizes(found, selection),
        "hours": round(sum(row["minutes"] for row in rows) / 60, 2),
        "if_all_were_given": _complete(found, selection, store, measured),
        "to_download": _remote(found, selection),
        "data": {name: source.root for name, source in sorted(found.plan.sources.items())},
        "jobs": _jobs(found, executor, device),
    }
    if as_json:
        cells = [
            {"folder": cell.folder, "label": cell.label, "state": found.states[key]}
            for key, cell in found.plan.cells.items()
        ]
        print(json.dumps(facts | {"cells": cells}, indent=1, sort_keys=True))
    else:
        _print_facts(found, selection, facts)
    return not any(entry.failed for entry in found.plan.not_run)


def _print_facts(found: RunPlan, selection: Selection, facts: dict[str, Any]) -> None:
    print(f"profile {selection.profile.name}: {len(found.plan.cells)} cells, {len(found.wanted)} to do")
    if found.plan.cells:
        _print_table(facts["kinds"])
    if facts["jobs"]:
        _print_jobs(facts["jobs"])
    for line in facts["sizes"]:
        print(f"sizes: {line}")
    for what, number in facts["costs"].items():
        print(f"{number} x {what}")
    for note in found.plan.notes:
        print(f"note: {note}")
    for warning in found.plan.warnings:
        print(f"warning: {warning}")
    for entry in found.plan.not_run:
        print(f"not run: {entry.what}: {entry.reason}")
    if complete := facts["if_all_were_given"]:
        print(
            f"with all missing data: {complete['cells']} cells, {complete['hours']:.1f} hours of one slot, "
            f"{complete['disk_mb'] / 1000:.1f} GB"
        )
        _print_table(complete["kinds"])
    for location in facts["to_download"]:
        print(f"to download: {location}")


def _jobs(found: RunPlan, executor: Launch | None, device: str) -> list[dict[str, Any]]:
    """Return what an executor would ask for to do the cells of a plan, a row for each kind of job."""
    if executor is None:
        return []
    device, slots = executor.choose_device(device)
    todo = [cell for key, cell in found.plan.cells.items() if key in found.wanted]
    return executor.kind.requests(todo, device, slots, executor.settings)


def _print_jobs(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal fields as a table; numbers to the right."""
    cells = [[name.replace("_", " ") for name in rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = [isinstance(value, int | float) for value in rows[0].values()]
    for line in cells:
        parts = (text.rjust(width) if number else text.ljust(width)
                 for text, width, number in zip(line, widths, numbers, strict=True))  # fmt: skip
        print("  " + "  ".join(parts).rstrip())


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print cells, minutes and megabytes by kind, and their sums, within 80 columns."""
    minutes, disk = sum(row["minutes"] for row in rows), sum(row["disk_mb"] for row in rows)
    print(f"  {'kind':<11}{'cells':>6}{'done':>6}{'to do':>6}{'minutes':>10}{'disk MB':>9}")
    for row in rows:
        counts = "".join(f"{row[name]:>6}" for name in ("cells", "done", "to_do"))
        print(f"  {row['kind']:<11}{counts}{row['minutes']:>10.1f}{row['disk_mb']:>9.0f}")
    print(f"  {'sum':<11}{'':>18}{minutes:>10.1f}{disk:>9.0f}   = {minutes / 60:.1f} hours of one slot")


def _sizes(found: RunPlan, selection: Selection) -> list[str]:
    """Number and size of the images, and the training schedule of each backbone, as sentences."""
    profile, classes = selection.profile, load_folder_classes(selection.profile.classes)
    size, cells = profile.dataset, found.plan.cells.values()
    lines = []
    if any(cell.kind == "synthesise" for cell in cells):
        copies = f"trained from {size.copy_px}-px centre-crop copies"
        if size.copy_px == ORIGINALS:
            copies = "trained from the original files"
        lines.append(f"{len(classes.ids)} classes x {size.images_per_class} images of {size.size_px} px, {copies}")
    trainings = [cell for cell in cells if cell.kind == "pretrain" and "settings" in cell.params]
    for arch, recipe in {cell.name: cell.params["settings"] for cell in trainings}.items():
        words = "{epochs} epochs at {image_size} px, batch {batch_size}".format(**recipe)
        lines.append(f"{arch}: {words}")
    return lines


def _complete(found: RunPlan, selection: Selection, store: Store, measured: dict[str, float]) -> dict[str, Any] | None:
    """Cells, hours and megabytes of the selection with all its data present, in sum and by kind; finished cells stay done.

    None if no data is missing.
    """
    if not found.plan.not_run:
        return None
    plan = Planner(selection, found.plan.sources, store.root).build()
    if len(plan.cells) == len(found.plan.cells):
        return None
    states: dict[str, State] = {key: found.states.get(key, "missing") for key in plan.cells}
    wanted = frozenset(key for key in plan.cells if key in found.wanted or key not in found.states)
    rows = _rows(RunPlan(plan, states, wanted), measured)
    return {
        "cells": len(plan.cells),
        "hours": round(sum(row["minutes"] for row in rows) / 60, 2),
        "disk_mb": round(sum(row["disk_mb"] for row in rows), 1),
        "kinds": rows,
    }


def _rows(found: RunPlan, measured: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row for each kind; for imports only if there are any."""
    rows = [_row(found, kind, measured) for kind in SHOWN_KINDS]
    return [row for row in rows if row["kind"] in KINDS or row["cells"]]


def _row(found: RunPlan, kind: str, measured: dict[str, float]) -> dict[str, Any]:
    todo = [found.plan.cells[key] for key in found.wanted if found.plan.cells[key].shown_kind == kind]
    return {
        "kind": kind,
        "cells": found.count(kind),
        "done": found.count(kind, "done"),
        "to_do": len(todo),
        "minutes": round(sum(_minutes(cell, measured) for cell in todo), 2),
        "disk_mb": round(sum(cell.resources.disk_mb * max(len(cell.shards), 1) for cell in todo), 1),
    }


def _minutes(cell: Cell, measured: dict[str, float]) -> float:
    expected = cell.resources.minutes * max(len(cell.shards), 1)
    whole = measured.get(f"{cell.kind}/{cell.name}")
    return expected if whole is None else whole * cell.resources.time_fraction


def _measured(store: Store, found: RunPlan) -> dict[str, float]:
    """Measured minutes by kind and name for a ``time_fraction`` of 1, from finished cells of this plan without shards."""
    times: dict[str, list[float]] = {}
    for key, cell in found.plan.cells.items():
        if found.states[key] == "done" and not cell.shards:
            manifest = read_manifest(store.folder(cell)) or {}
            minutes = float(manifest.get("wall_seconds", 0.0)) / 60 / cell.resources.time_fraction
            times.setdefault(f"{cell.kind}/{cell.name}", []).append(minutes)
    return {name: sum(values) / len(values) for name, values in times.items()}


def _costs(found: RunPlan) -> dict[str, int]:
    """Description of the work of the cells to do, beginning with their item or name, to the number of such cells.

    In the order of the plan: by suite, then by item (fractions from the largest on).
    """
    todo = (cell for key, cell in found.plan.cells.items() if key in found.wanted)
    return dict(Counter(f"{cell.params.get('item', cell.name)}: {cell.cost}" for cell in todo if cell.cost))


def _remote(found: RunPlan, selection: Selection) -> list[str]:
    """Return the models that the settings of cells name by the hub's names; without a network, those that are not here."""
    if offline():
        return sorted({each.model.location for each in absent_models(selection, found.plan, found.wanted)})
    values: Iterable[object] = (
        v for cell in found.plan.cells.values() for v in dict(cell.params.get("settings", {})).values()
    )
    return sorted({str(value) for value in values if str(value).startswith(("hub:", "open_clip:"))})
