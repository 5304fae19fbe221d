"""Conformance of a generator: what its images may depend on, and that nothing is lost, missing or read in secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.conformance.common import (
    borrow,
    closure,
    data_roots,
    do_here,
    folder_files,
    make_plan,
    run_cells,
    selection_of,
    sized,
)
from harness.conformance.outcome import Outcome, failed, guard, judge, passed
from harness.conformance.watch import opened, touched
from harness.core.classes import load_folder_classes
from harness.plan.model import Plan
from harness.plan.profile import Profile
from harness.plugins import registry
from harness.plugins.generator import Generator
from harness.plugins.inputs import INDEX
from harness.store.artifacts import Store
from harness.store.cells import Cell

_AGAIN = 3
"""Classes that are made a second time."""
_FLAT = 2.0


@dataclass(frozen=True)
class Subject:
    """A generator, planned twice: all classes in one chunk each, and the same images one by one."""

    generator: Generator
    profile: Profile
    images: int
    root: Path

    def planned(self, chunk: int) -> tuple[Plan, Cell]:
        """Return the plan and the cell that makes the images."""
        plan = make_plan(selection_of(sized(self.profile, self.images, chunk), self.generator.card.id, ""))
        if plan.not_run:
            from harness.core.errors import DataMissing

            raise DataMissing(
                f"{self.generator.card.id} cannot be checked", plan.not_run[0].reason, "give it with --data or --set"
            )
        return plan, next(cell for cell in plan.cells.values() if cell.kind == "synthesise")


def check_generator(generator: Generator, profile: Profile, images: int, root: Path) -> Iterator[Outcome]:
    """Yield the outcomes of all checks of a generator; its artifacts are kept below ``root``."""
    subject = Subject(generator, profile, images, root)
    plan, cell = subject.planned(images)
    store = Store(root / "workers")
    report = run_cells(plan, closure(plan, [cell]), store)
    if report.failures:
        first = report.failures[0]
        yield failed("makes its images", f"{first.what}: {first.why}", f"{first.fix}; log: {first.log}")
        return
    rows = _rows(store, cell)
    yield passed(
        "makes its images", f"{len(rows)} images by two workers, {sum(report.cpu_seconds.values()):.0f} CPU-seconds"
    )
    yield _coverage(subject, rows)
    if generator.imports:
        yield from _import(subject, plan, cell, store)
        return
    yield from _format(store, cell, rows, subject.profile.dataset.size_px)
    seen: set[str] = set()
    yield from guard("batch and workers", _again(subject, cell, plan, store, rows, seen))
    yield from guard("resumes its fit", _refit(subject, plan, cell, store, seen))
    yield _inputs(subject, cell, seen)
    yield _prompts(generator, rows)


def _rows(store: Store, cell: Cell) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.open(cell).path(INDEX).read_text(encoding="utf-8").splitlines()]


def _coverage(subject: Subject, rows: list[dict[str, Any]]) -> Outcome:
    classes = load_folder_classes(subject.profile.classes)
    counts = dict.fromkeys(classes.ids, 0)
    for row in rows:
        counts[classes.ids[row["class_index"]]] += 1
    wanted = subject.images if not subject.generator.imports else 1
    problems = [f"{wnid} has {n} images" for wnid, n in counts.items() if n < wanted]
    return judge(
        "class coverage", problems, f"every one of {len(classes)} classes", "make images of every class asked for"
    )


def _format(store: Store, cell: Cell, rows: list[dict[str, Any]], size: int) -> Iterator[Outcome]:
    import numpy as np

    from harness.images.decode import open_picture
    from harness.images.shards import ShardReader

    artifact = store.open(cell)
    problems, flat = [], []
    for name in artifact.files(".tar"):
        shard = ShardReader(artifact.path(name))
        for member in shard.names:
            found = open_picture(shard.read(member), member)
            if (found.format, found.mode, found.image.size) != ("PNG", "RGB", (size, size)):
                problems.append(f"{member} is {found.format} {found.mode} {found.image.size}")
            if np.asarray(found.image).std() < _FLAT:
                flat.append(member)
    yield judge("image format", problems, f"RGB PNG of {size}x{size} px", "yield (size_px, size_px, 3) uint8")
    sums: dict[str, str] = {}
    double = [
        f"{row['path']} equals {sums[row['sha1']]}"
        for row in rows
        if row["sha1"] in sums or sums.update({row["sha1"]: row["path"]})
    ]
    problems = [f"{name} is near-constant" for name in flat] + double
    yield judge(
        "image variety", problems, "no near-constant image, no two equal", "draw every image from request.seed(index)"
    )


def _again(
    subject: Subject, cell: Cell, plan: Plan, store: Store, rows: list[dict[str, Any]], seen: set[str]
) -> Iterator[Outcome]:
    """Make a few classes one image at a time, backwards, in this process; then tear a shard and go on."""
    from harness.images.shards import read_rows

    single, alone = subject.planned(1)
    own = Store(subject.root / "alone")
    borrow(own, store, [plan.cells[key] for key in cell.inputs.values()])
    ids = load_folder_classes(subject.profile.classes).ids[:_AGAIN]
    shards = [shard for shard in alone.shards if shard.rsplit("_", 2)[0] in ids][::-1]
    with opened() as paths:
        for shard in shards:
            do_here(single, alone, own, shard)
    seen |= paths
    folder = own.folder(alone) / "shards"
    made = {row.path: row.sha1 for shard in shards for row in read_rows(folder / f"{shard}.jsonl")}
    expected = {row["path"]: row["sha1"] for row in rows if row["path"] in made}
    problems = [f"{path} has other bytes" for path in made if made[path] != expected.get(path)]
    text = f"{len(made)} images made again: one by one, in reverse order, in another process: the same bytes"
    fix = "let an image depend on request.seed(index), settings and weights only; pad batches to one size"
    yield judge("batch and workers", problems, text, fix)
    whole = {shard: (folder / f"{shard}.tar").stat().st_mtime_ns for shard in shards[1:]}
    torn = folder / f"{shards[0]}.tar"
    torn.write_bytes(torn.read_bytes()[:700])
    for shard in shards:
        do_here(single, alone, own, shard)
    after = {row.path: row.sha1 for shard in shards for row in read_rows(folder / f"{shard}.jsonl")}
    problems = [f"{path} came out otherwise" for path in after if after[path] != made[path]]
    problems += [f"{s} was made again" for s, t in whole.items() if (folder / f"{s}.tar").stat().st_mtime_ns != t]
    yield judge(
        "resumes synthesis",
        problems,
        "a torn shard is rebuilt, whole ones are reused",
        "do not keep state between requests",
    )


class _Killed(BaseException):
    """Stands for a kill in the middle of a fit; no ``Exception``, so that nothing reports it as an error of the plugin."""


def _refit(subject: Subject, plan: Plan, cell: Cell, store: Store, seen: set[str]) -> Iterator[Outcome]:
    fits = [plan.cells[key] for key in cell.inputs.values() if plan.cells[key].kind == "fit"]
    if not fits:
        yield Outcome("resumes its fit", "not applicable", "nothing is fitted")
        return
    fit, own = fits[0], Store(subject.root / "refit")
    borrow(own, store, [plan.cells[key] for key in fit.inputs.values()])
    reached: list[str] = []

    def kill(done: int, total: int, note: str) -> None:
        if done * 2 >= total:
            reached.append(f"{done} of {total}")
            raise _Killed

    with opened() as paths:
        try:
            do_here(plan, fit, own, progress=kill)
        except _Killed:
            do_here(plan, fit, own)
    seen |= {f"fit:{path}" for path in paths}
    first, second = folder_files(store.folder(fit)), folder_files(own.folder(fit))
    problems = [f"{name} differs" for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
    if not reached:
        problems.append("it never reported progress, so it could not be stopped half-way")
    text = f"stopped at {reached[0] if reached else '?'} and started again: the same bytes as the fit in one go"
    fix = "checkpoint into ctx.scratch, report ctx.progress, derive all randomness from ctx.seed"
    yield judge("resumes its fit", problems, text, fix)


def _inputs(subject: Subject, cell: Cell, seen: set[str]) -> Outcome:
    """Compare what was opened with what the card declares."""
    card, roots = subject.generator.card, data_roots(subject.profile)
    at_synthesis = touched({path for path in seen if not path.startswith("fit:")}, roots)
    at_fit = touched({path.removeprefix("fit:") for path in seen if path.startswith("fit:")}, roots)
    problems = [
        f"it opens {path} of data set {name!r}, which it does not declare"
        for name, path in (at_synthesis | at_fit).items()
        if name not in cell.data
    ]
    if at_synthesis and not card.real_pixels_at_synthesis:
        problems.append(f"real_pixels_at_synthesis is false, and synthesis opens {next(iter(at_synthesis.values()))}")
    if at_fit and not card.real_pixels_at_training:
        problems.append(f"real_pixels_at_training is false, and the fit opens {next(iter(at_fit.values()))}")
    if (at_synthesis or at_fit) and not {"real_images", "real_features", "captions"} & set(card.information):
        problems.append("it reads images and its information names none")
    used = ", ".join(sorted({*at_synthesis, *at_fit})) or "none"
    fix = "name data sets in card.data, what is learnt from them in card.information, and set both real-pixel flags"
    return judge("declared inputs", problems, f"data sets opened: {used}, as declared", fix)


def _prompts(generator: Generator, rows: list[dict[str, Any]]) -> Outcome:
    told = [row["prompt"] for row in rows if row["prompt"]]
    if not told:
        return Outcome("declared prompts", "not applicable", "images carry no prompt")
    text = {"class_names", "templates", "captions"} & set(generator.card.information)
    problems = [] if text else [f"the prompt {told[0]!r} is used, but no text is declared as information"]
    if generator.card.prompts == "none":
        problems.append("card.prompts says none")
    return judge(
        "declared prompts", problems, f"such as {told[0]!r}", "declare class_names, templates or captions, and prompts"
    )


def _import(subject: Subject, plan: Plan, cell: Cell, store: Store) -> Iterator[Outcome]:
    own = Store(subject.root / "alone")
    borrow(own, store, [plan.cells[key] for key in cell.inputs.values()])
    do_here(plan, cell, own)
    same = store.open(cell).path(INDEX).read_bytes() == own.open(cell).path(INDEX).read_bytes()
    problems = [] if same else ["two imports list other images"]
    yield judge("deterministic", problems, "a second import lists the same images", "sort whatever is listed")
    images = [name for name in store.open(cell).files() if name.endswith((".png", ".jpg", ".tar"))]
    yield judge("nothing copied", images, "the artifact holds lists only", "list images where they are")


def find_generator(name: str) -> Generator | None:
    """Return a registered generator, or None where a suite may bear the name."""
    base = name.partition(":")[0]
    return registry.generators().get(name) if base in registry.generators().ids() else None
