"""Few-shot curves: data and picture of accuracy against training images (Figure 3)."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from harness.core.identity import content_key
from harness.stats.estimate import wilson
from harness.store.records import Comparability, Metric, Record, Subject
from leaderboard.board import Board
from leaderboard.curves import FIELDS, curves_csv, dots, draw_curves
from leaderboard.sources import Entry
from leaderboard.tables import build_tables
from tests.leaderboard.conftest import seal

SETS = ("dtd", "pets")


def record(generator: str, amount: str, name: str, k: int) -> Record:
    """Return one few-shot record."""
    metric = Metric(f"{name}@{amount}", wilson(k, 100), role="companion", group=f"transfer@{amount}", group_size=2)
    return Record("few-shot", 300, f"{name}@{amount}", Subject(generator, "resnet10", 0, 0), 0, (metric,), (),
                  Comparability("toy", 1, {name: "f"}, "c", "p", "r"), content_key([generator, amount, name]))  # fmt: skip


def tables():  # type: ignore[no-untyped-def]
    """Return tables of two generators, three fractions and two numbers of shots."""
    records = [
        record(generator, amount, name, k + (5 if generator == "lbgen" else 0) + 10 * i)
        for generator in ("real", "lbgen")
        for k, amount in ((70, "1"), (60, "0.5"), (40, "0.1"), (35, "4shot"), (20, "1shot"))
        for i, name in enumerate(SETS)
    ]
    return build_tables([Entry(one, "run") for one in records])


def test_transfer_few_shot_curve_data() -> None:
    found = dots(tables())
    rows = list(csv.DictReader(io.StringIO(curves_csv(found))))
    assert tuple(rows[0]) == FIELDS and len(rows) == 10
    real = {
        (row["kind"], float(row["amount"])): round(float(row["top1"]), 9) for row in rows if row["generator"] == "real"
    }
    assert real == {("fraction", 0.1): 0.45, ("fraction", 0.5): 0.65, ("fraction", 1.0): 0.75, ("shots", 1.0): 0.25,
                    ("shots", 4.0): 0.4}  # fmt: skip
    for row in rows:
        assert float(row["low"]) < float(row["top1"]) < float(row["high"]) and row["n"] == "200" and row["seeds"] == "1"
    assert curves_csv(dots(tables())) == curves_csv(found)


def test_transfer_few_shot_curve_needs_every_data_set() -> None:
    half = build_tables([Entry(record("real", "0.1", "dtd", 40), "run")])
    assert dots(half) == []


def test_transfer_few_shot_curve_ends_at_the_linear_probe() -> None:
    def whole(name: str, k: int, protocol: str = "p; toolbox validation") -> Record:
        metric = Metric(name, wilson(k, 100), group="transfer", group_size=2)
        one = record("real", "0.1", name, 40)
        terms = replace(one.comparability, protocol=protocol)
        return replace(one, suite="linear-probe", suite_order=200, item=name, metrics=(metric,), comparability=terms,
                       key=content_key([name, k]))  # fmt: skip

    few = [record("real", "0.1", name, 40) for name in SETS]
    (low, high) = dots(build_tables([Entry(one, "run") for one in [*few, whole("dtd", 60), whole("pets", 80)]]))
    assert (low.amount, high.amount, high.top1) == (0.1, 1.0, 0.7)
    assert dots(build_tables([Entry(whole("dtd", 60), "run"), Entry(whole("pets", 80), "run")])) == []
    for protocol in ("p; official validation", "another search; toolbox validation"):
        other = [whole(name, 60, protocol) for name in SETS]
        (low,) = dots(build_tables([Entry(one, "run") for one in [*few, *other]]))
        assert low.amount == 0.1, "a probe that was searched otherwise is not the end of this curve"


def test_transfer_few_shot_picture(tmp_path: Path) -> None:
    draw_curves(dots(tables()), tmp_path / "few.png")
    image = np.asarray(Image.open(tmp_path / "few.png").convert("RGB"))
    assert image.shape[1] > 1.5 * image.shape[0] > 600  # a panel for fractions, one for shots
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    draw_curves(dots(tables()), tmp_path / "again.png")
    assert (tmp_path / "few.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_transfer_few_shot_curve_lies_beside_the_board(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    keys = []
    for amount in ("1", "0.1"):
        for name in SETS:
            one = record("real", amount, name, 50)
            folder = tmp_path / "evaluate" / f"few-shot-{one.key[:16]}"
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(one.to_json())
            seal(folder, one.key)
            keys.append(one.key)
    Board().show(tmp_path, frozenset(keys))
    capsys.readouterr()
    assert (tmp_path / "leaderboard.csv").is_file() and (tmp_path / "few-shot.png").stat().st_size > 5000
    assert len((tmp_path / "few-shot.csv").read_text().splitlines()) == 3
