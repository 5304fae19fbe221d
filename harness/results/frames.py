"""Stores as data frames: every value of a leaderboard, and the rows that the values were computed from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import DataMissing
from harness.run.scoring import ROWS
from harness.store.artifacts import Artifact, Store

if TYPE_CHECKING:
    import pandas as pd

Place = str | os.PathLike[str]
IDENTIFYING = ("generator", "backbone", "generator_seed", "train_seed", "suite", "evaluation", "probe_seed")
"""Columns that ``read_rows`` puts before those of the suite."""


def default_store() -> Path:
    """Return the store that the command line uses: ``$HARNESS_STORE``, or ``./store``."""
    return Path(os.environ.get("HARNESS_STORE") or "store")


def read_records(*places: Place) -> pd.DataFrame:
    """Return all results of stores and baseline folders, merged: one line per value.

    Args:
        places: Folders of stores or baselines; none: ``$HARNESS_STORE``, or ``./store``.

    Returns:
        A tidy frame in the order of the leaderboard, with the columns of ``leaderboard --format long`` (docs/python.md lists
        them). ``value``, ``low`` and ``high`` are fractions if ``unit`` is ``fraction`` or ``ratio`` (0.57 is printed as 57),
        else points; ``low`` and ``high`` are the ends of the 95 % interval. Undefined numbers are NaN.

    Raises:
        DataMissing: a folder does not exist or holds no results.
        UserError: a record is damaged, or two records of one evaluation disagree.
    """
    from harness.results.leaderboard import board

    return value_frame(board().values([Path(place) for place in places] or [default_store()], False))


def read_rows(
    place: Place | None = None, *, suite: str = "", item: str = "", generator: str = "", backbone: str = ""
) -> pd.DataFrame:
    """Return the stored rows of a store's evaluations: one line per test item, as the suites wrote them.

    Args:
        place: Folder of a store; None: ``$HARNESS_STORE``, or ``./store``.
        suite: Only evaluations of this suite, e.g. ``texture-bias``; empty: all. Suites have columns of their own, so the rows of
            several have gaps.
        item: Only this item of a suite, e.g. ``dtd`` of ``linear-probe``; empty: all.
        generator: Only this generator, or name such as ``checkpoint:resnet50-1a2b3c``; empty: all.
        backbone: Only this architecture; empty: all.

    Returns:
        The columns ``generator``, ``backbone``, ``generator_seed``, ``train_seed``, ``suite``, ``evaluation`` (the item of the
        suite) and ``probe_seed``, then those of the suite. A column of the suite that has one of these names gets the suffix
        ``_row``.

    Raises:
        DataMissing: the folder does not exist, is no store, or holds no such evaluation.
        CorruptArtifact: the bytes of a file differ from its manifest.
    """
    store = Path(place) if place is not None else default_store()
    wanted = {"suite": suite, "evaluation": item, "generator": generator, "backbone": backbone}
    return rows_frame(store, {name: value for name, value in wanted.items() if value})


def value_frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """Return lines of values as a frame whose numbers are numbers, even in a column without any."""
    import pandas as pd

    frame = pd.DataFrame(lines)
    numbers = {name: "float64" for name in ("value", "low", "high", "seed_sd") if name in frame}
    counts = {name: "Int64" for name in ("n", "n_seeds", "suite_version", "tie_group") if name in frame}
    return frame.astype(numbers | counts)


def rows_frame(store: Path, wanted: Mapping[str, Any], keys: frozenset[str] | None = None) -> pd.DataFrame:
    """Return the rows of evaluations whose identifying columns have the wanted values, and whose keys are among ``keys``.

    Raises:
        DataMissing: there is none.
    """
    import pandas as pd

    artifacts = list(_evaluations(store))
    chosen = [
        (artifact, facts)
        for artifact, facts in artifacts
        if all(facts[name] == value for name, value in wanted.items()) and (keys is None or artifact.key in keys)
    ]
    if not chosen:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        known = sorted({f"{facts['suite']} of {facts['generator']}" for _, facts in artifacts})
        raise DataMissing(
            f"no rows{f' of {asked}' if asked else ''} in {store}",
            f"there are rows of {'; '.join(known[:12])}{' ...' if len(known) > 12 else ''}"
            if known
            else "it holds no evaluation",
            "correct the name, or evaluate it first",
        )
    return pd.concat([_identified(artifact, facts) for artifact, facts in chosen], ignore_index=True)


def _evaluations(store: Path) -> Iterator[tuple[Artifact, dict[str, Any]]]:
    """Yield the finished evaluations of a store with their identifying columns.

    Raises:
        DataMissing: the folder is no store.
    """
    if not (store / "evaluate").is_dir():
        baseline = (store / "baseline.json").is_file()
        raise DataMissing(
            f"no rows in {store}",
            "a baseline keeps records, not rows" if baseline else "it is no store with evaluations" if store.is_dir() else "no such folder",
            "give the folder of a store",
        )  # fmt: skip
    for artifact in Store(store).artifacts("evaluate"):
        spec = artifact.manifest["spec"]
        subject = {name: spec["params"]["subject"][name] for name in IDENTIFYING[:4]}
        what = {"suite": spec["name"], "evaluation": spec["params"]["item"], "probe_seed": spec["seeds"]["probe_seed"]}
        yield artifact, subject | what


def _identified(artifact: Artifact, facts: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    rows = pd.read_parquet(artifact.path(ROWS))
    rows = rows.rename(columns={name: f"{name}_row" for name in rows.columns if name in IDENTIFYING})
    return pd.concat(
        [pd.DataFrame({name: [facts[name]] * len(rows) for name in IDENTIFYING}, index=rows.index), rows], axis=1
    )
