"""What ``doctor`` says about the data sets of the bias suites: layout, counts, categories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.api import DataMissing, DataReport, sample_paths


def cue_conflict(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """List the stimuli and check their names and numbers; of the public set, whose card is unchanged, also their bytes."""
    from suites.bias.cards import CueConflictCard
    from suites.bias.texture import differing, read_stimuli

    expected = CueConflictCard.load(card)
    base, stimuli = read_stimuli(root, expected)
    public = expected == CueConflictCard.load()
    wrong = differing(base, stimuli) if public else []
    conflict = sum(item.shape != item.texture for item in stimuli)
    return DataReport(
        "<shape>/<shape>-<texture>.png",
        f"{len(stimuli)} images, {conflict} with conflicting cues",
        f"{len(expected.categories)} categories",
        sample_paths([str(base / item.name) for item in stimuli]),
        ("all stimuli",) if public and not wrong else (),
        (f"{len(wrong)} of {len(stimuli)} files differ from the published hashes (SHA-256), first {wrong[0]}",)
        if wrong
        else (),
    )


def focus(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """Count the rows of the database and the files they name; bytes are compared when the suite runs."""
    from suites.bias.cards import FocusCard
    from suites.bias.context import DATABASE, list_annotations, miscounted

    expected = FocusCard.load(card)
    base, items = list_annotations(root, expected)
    missing = [item.name for item in items if not (base / item.name).is_file()]
    if missing:
        raise DataMissing(
            f"{name}: {len(missing)} of {len(items)} listed images are missing",
            f"first {base / missing[0]}",
            "unpack the images again",
        )
    return DataReport(
        DATABASE,
        f"{len(items)} images",
        f"{len(expected.categories)} categories",
        sample_paths([str(base / item.name) for item in items]),
        wrong=tuple(miscounted(items, expected)),
    )


def in9(name: str, root: Path, card: Mapping[str, Any]) -> DataReport:
    """List the three variations and check that they show the same foregrounds."""
    from suites.bias.background import VARIATIONS, read_views
    from suites.bias.cards import In9Card

    expected = In9Card.load(card)
    base, views = read_views(root, expected)
    return DataReport(
        "<variation>/val/<class>/",
        f"{len(views)} images, {len(views) // len(VARIATIONS)} foregrounds in {len(VARIATIONS)} variations",
        f"{len(expected.folders)} classes",
        sample_paths([str(base / view.name) for view in views]),
    )
