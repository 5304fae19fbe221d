"""The import itself: findings to a report, decisions to a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from generators.published.checks import Finding, check_all
from generators.published.mapping import class_map
from generators.published.questions import ADVICE, ANSWERS
from generators.published.scan import FACTS, ROWS, read_rows
from harness.api import Context, FolderSource, UserError, image_folder, write_image_list, write_json, write_text

REPORT = "report"


def import_dataset(ctx: Context) -> None:
    """Write the manifest of a published data set and the report of its checks; no image is copied.

    Raises:
        UserError: a finding waits for a decision, or classes are missing; the report is written all the same.
    """
    settings, name = ctx.params["settings"], ctx.cell.data[0]
    scan = ctx.inputs["scan"]
    rows, facts = list(read_rows(scan.path(ROWS))), scan.json(FACTS)
    folders, stated = {row["folder"] for row in rows}, (facts.get("label_names", ()), facts.get("beside", {}))
    mapping = class_map(settings["class_map"], ctx.classes, folders, *stated)
    same_list = settings["documented_classes"] in (0, len(ctx.classes))
    findings = check_all(
        rows,
        ctx.classes,
        mapping,
        total=settings["documented_total"] if same_list else 0,
        size_px=settings["documented_px"],
        per_class=ctx.params["dataset"]["images_per_class"],
        skipped=facts["skipped"],
        notes=facts.get("notes", ()),
        real_sha1=_real_hashes(ctx, rows),
        parents=_real_stems(ctx) if settings["paired"] else (),
        identity=ctx.inputs["identity"].json("identity.json") if "identity" in ctx.inputs else None,
        not_done=_not_done(ctx),
    )
    decisions = settings["decisions"]
    _write_report(ctx.out, facts["layout"], findings, decisions)
    _ask(ctx, findings, decisions)
    dropped = {path for each in findings if decisions.get(each.question) == "drop" for path in each.paths}
    manifest = _manifest(ctx, rows, mapping.labels, dropped, facts["prompts"])
    _check_emptied(ctx, manifest)
    write_image_list(ctx, name, manifest, layout=facts["layout"])


def _not_done(ctx: Context) -> dict[int, str]:
    """Return why checks cannot be done, by their number."""
    family, settings = ctx.cell.name.partition(":")[0], ctx.params["settings"]
    reasons = {}
    if len(ctx.cell.data) < 2:
        reasons[5] = "no comparison with real images, no data set of them is given (--data train=PATH)"
        reasons[7] = "no real images are given (--data train=PATH)"
    if not settings["paired"]:
        reasons[7] = f"these images are not known to bear the names of real ones (generators.{family}.paired=true)"
    if "identity" not in ctx.inputs:
        reasons[8] = f"no CLIP is named (generators.{family}.clip=FOLDER or open_clip:NAME@TAG)"
    return reasons


def _real_hashes(ctx: Context, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the SHA-1 of those real images whose size in bytes some image here has, too."""
    if len(ctx.cell.data) < 2:
        return set()
    root = image_folder(ctx.data(ctx.cell.data[1]))
    sizes = {row["bytes"] for row in rows}
    found = set()
    for path in FolderSource(root, ctx.classes.ids).names:
        file = root / path
        if file.stat().st_size in sizes:
            found.add(hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest())
    return found


def _real_stems(ctx: Context) -> set[str]:
    if len(ctx.cell.data) < 2:
        return set()
    names = FolderSource(image_folder(ctx.data(ctx.cell.data[1])), ctx.classes.ids).names
    return {str(PurePosixPath(name).with_suffix("")) for name in names}


def _write_report(out: Path, layout: str, findings: Sequence[Finding], decisions: Mapping[str, str]) -> None:
    lines = [f"layout: {layout}"]
    for each in findings:
        lines.append(f"{each.number} {each.name}: {each.text}")
        if each.question:
            lines.append(f"    decision {each.question}: {decisions.get(each.question, 'open')}")
    write_text(out / f"{REPORT}.txt", "\n".join(lines) + "\n")
    listed = [
        {
            "check": each.number,
            "name": each.name,
            "text": each.text,
            "images": each.count,
            "question": each.question,
            "decision": decisions.get(each.question, "") if each.question else "",
            "paths": each.paths[:1000],
        }
        for each in findings
    ]
    write_json(out / f"{REPORT}.json", {"layout": layout, "findings": listed})


def _ask(ctx: Context, findings: Sequence[Finding], decisions: Mapping[str, str]) -> None:
    family = ctx.cell.name.partition(":")[0]
    fatal = [each for each in findings if each.fatal]
    if fatal:
        raise UserError(
            f"{ctx.cell.name} cannot be imported",
            "; ".join(each.text for each in findings if each.fatal or each.question == "unknown-folders"),
            f"complete it, correct class_map, or use a class list of the classes it has; report: {ctx.out / REPORT}.txt",
        )
    wrong = [f"{key}={value}" for key, value in decisions.items() if value not in ANSWERS[key]]
    if wrong:
        raise UserError(f"{wrong[0]} is not possible", "such images cannot be used", "the only decision is drop")
    open_ = [each for each in findings if each.question and each.question not in decisions]
    if open_:
        answers = " ".join(
            f"--set generators.{family}.decisions.{each.question}={'|'.join(ANSWERS[each.question])}" for each in open_
        )
        known = ADVICE.get(family, {})
        advice = "".join(f"; {each.question}: {known[each.question]}" for each in open_ if each.question in known)
        raise UserError(
            f"{ctx.cell.name}: {len(open_)} findings need your decision",
            "; ".join(each.text for each in open_),
            f"decide: {answers}{advice}; whole report: {ctx.out / REPORT}.txt",
        )


def _manifest(
    ctx: Context,
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, int],
    dropped: set[str],
    prompts: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return one row per image that is used, in the order (class, path), at most ``images_per_class`` of a class."""
    limit = ctx.params["dataset"]["images_per_class"]
    used = [row for row in rows if row["folder"] in labels and row["path"] not in dropped]
    used.sort(key=lambda row: (labels[row["folder"]], row["path"]))
    counts: dict[int, int] = {}
    manifest = []
    for row in used:
        label = labels[row["folder"]]
        index = counts.get(label, 0)
        counts[label] = index + 1
        if index < limit:
            manifest.append(
                {
                    "path": row["path"],
                    "class_index": label,
                    "wnid": ctx.classes.ids[label],
                    "index": index,
                    "prompt": prompts.get(row["path"], ""),
                    "seed": None,
                    "sha1": row["sha1"],
                    "bytes": row["bytes"],
                    "container": row["container"],
                    "offset": row["offset"],
                }
            )
    return manifest


def _check_emptied(ctx: Context, manifest: Sequence[Mapping[str, Any]]) -> None:
    empty = sorted(set(range(len(ctx.classes))) - {row["class_index"] for row in manifest})
    if empty:
        raise UserError(
            f"{ctx.cell.name} cannot be imported",
            f"nothing is left of {len(empty)} classes, such as {ctx.classes.ids[empty[0]]}",
            "decide otherwise, or complete the data set",
        )
