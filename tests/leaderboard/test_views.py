"""Views of the board, secondary metrics that change nothing else, and the smallest difference each column can show."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import UserError
from harness.stats.difference import Part, Units, flag_units
from harness.stats.estimate import Estimate, undefined, wilson
from harness.store.records import Metric, Record
from leaderboard.baseline import gated, write_baseline
from leaderboard.board import Board
from leaderboard.compare import compare, systems, to_csv, to_markdown
from leaderboard.exports import to_markdown as to_page
from leaderboard.gate import decide
from leaderboard.sources import from_baseline, from_store, read_head
from leaderboard.tables import Value, build_tables
from leaderboard.terminal import to_terminal
from leaderboard.ties import resolution, significantly_different
from leaderboard.views import VIEWS
from tests.leaderboard.conftest import MakeStore, flags, make_record, put

WHY = "the rows hold no confidences"
IMAGES = 240


def results(store: Path, second: bool) -> Path:
    """Write two generators with three seeds, with or without secondary metrics, and one measure of the images themselves."""
    names = [f"item {i:04d}" for i in range(IMAGES)]
    for place, generator in enumerate(("lbgen", "sd15")):
        for seed in range(3):
            for suite, rate in (("in-domain", 0.8), ("texture-bias", 0.3), ("linear-probe", 0.5)):
                right = flags(IMAGES, rate + 0.02 * seed - 0.1 * place, 10 * place + seed)
                record = make_record(suite, generator, right, seed)
                units = [flag_units(record.metrics[0].name, names, right)]
                if second and suite != "linear-probe":
                    record, more = _with_second(record, names, flags(IMAGES, 0.4 + 0.1 * place, seed))
                    units += more
                put(store, record, units)
            images = make_record("images", generator, flags(40, 0.5, seed), seed)
            subject = replace(images.subject, backbone="-", train_seed=0)
            metric = Metric("coverage", wilson(20 + seed, 40), role="secondary")
            put(store, replace(images, subject=subject, metrics=(*images.metrics, *([metric] if second else []))), [])
    return store


def _with_second(record: Record, names: list[str], right: list[bool]) -> tuple[Record, list[Units]]:
    name = {"texture-bias": "shape_accuracy"}.get(record.suite, "accuracy_at_80")
    added = (Metric(name, wilson(sum(right), IMAGES), role="secondary"),
             Metric("aurc", undefined(WHY, population="new"), better="lower", role="secondary"))  # fmt: skip
    return replace(record, metrics=(*record.metrics, *added)), [flag_units(name, names, right)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the same results without and with secondary metrics."""
    root = tmp_path_factory.mktemp("views")
    return results(root / "without", False), results(root / "with", True)


@pytest.mark.parametrize("style", ["csv", "md", "latex", "html"])
def test_secondary_metrics_leave_the_main_view_as_it_was(stores: tuple[Path, Path], style: str) -> None:
    first, second = (Board().render([store], style, False) for store in stores)
    if style == "html":  # what stands behind a click names the record's other metrics, too
        first, second = (
            re.sub(r'<script type="application/json".*?</script>', "", str(page), flags=re.S)
            for page in (first, second)
        )
    assert first == second


def test_secondary_metrics_move_no_gate_and_no_comparison(stores: tuple[Path, Path], tmp_path: Path) -> None:
    without, second = stores
    write_baseline(tmp_path / "base", from_store(without), "first", (), {})
    old = gated(from_baseline(tmp_path / "base"), read_head(tmp_path / "base")["gated"])
    found = [decide(old, gated(from_store(store), ()), {}) for store in stores]
    assert found[0] == found[1] and {one.title for one in found[0].findings} == {one.title for one in old}
    lines = [[replace(one, agreement=None, first=None, second=None) for one in compare(*systems(("lbgen", "sd15"), [store]))]
             for store in stores]  # fmt: skip
    assert lines[0] == lines[1]
    write_baseline(tmp_path / "next", from_store(second), "second", (), {})
    heads = [read_head(tmp_path / name) for name in ("base", "next")]
    assert heads[0]["gated"] == heads[1]["gated"] and heads[0]["values"] == heads[1]["values"]
    kept = {m.name for entry in from_baseline(tmp_path / "next") for m in entry.record.metrics}
    assert {"shape_accuracy", "accuracy_at_80", "coverage"} <= kept, "a baseline's board has the further views, too"


def columns(store: Path, view: str) -> list[str]:
    header = next(csv.reader(io.StringIO(str(Board().render([store], "csv", False, columns=view)))))
    return [name.removesuffix(".n") for name in header if name.endswith(".n")]


def test_each_view_has_its_columns(stores: tuple[Path, Path]) -> None:
    main = ["in-domain/top1", "images", "linear-probe", "texture-bias/TI"]
    secondary = ["in-domain/accuracy_at_80", "texture-bias/shape_accuracy"]
    assert columns(stores[1], "main") == main == columns(stores[0], "main")
    assert set(columns(stores[1], "bias")) == {"in-domain/top1", "texture-bias/TI", *secondary}
    assert columns(stores[1], "images") == ["images", "images/coverage"]
    assert set(columns(stores[1], "all")) == {*main, *secondary, "images/coverage"}
    assert columns(stores[0], "all") == main


def test_secondary_columns_stand_in_groups_of_their_own_and_are_not_ranked(stores: tuple[Path, Path]) -> None:
    page = str(Board().render([stores[1]], "md", False, columns="bias"))
    heads = re.findall(r"^### (.*)$", page, re.M)
    assert heads == [
        "in-domain",
        "in-domain: secondary",
        "texture-bias",
        "texture-bias: secondary",
        "bias against in-domain accuracy",
    ]
    group = page.partition("### texture-bias: secondary")[2].partition("###")[0]
    assert "shape_accuracy" in group and "TI" not in group and "*" not in group.replace("*resolution*", "")
    html = str(Board().render([stores[1]], "html", False, columns="all"))
    assert [
        html.count(f"<h3>{title}</h3>") for title in ("in-domain: secondary", "images: secondary", "in-domain")
    ] == [1, 1, 0]
    main = html.partition('<table class="main">')[2].partition("</table>")[0]
    assert "accuracy_" not in main and ">TI" in main.replace("\n", "")
    assert str(Board().render([stores[1]], "latex", False, columns="all")).count(": secondary, profile toy") == 3


def test_a_secondary_column_without_any_value_is_left_out_and_says_why(stores: tuple[Path, Path]) -> None:
    page = str(Board().render([stores[1]], "md", False, columns="bias"))
    assert f"in-domain aurc: undefined in all rows, {WHY}" in page and page.count(WHY) == 2
    lines = json.loads(str(Board().render([stores[1]], "json", False)))
    assert {line["remark"] for line in lines if line["metric"] == "aurc"} == {WHY}, "a line per value keeps it"


def test_unknown_views_and_views_of_tidy_tables_are_refused(stores: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="unknown columns 'bais'") as failure:
        Board().render([stores[1]], "md", False, columns="bais")
    assert "bias" in failure.value.fix and all(view in failure.value.why for view in VIEWS)
    with pytest.raises(UserError, match="--columns has no json"):
        Board().render([stores[1]], "json", False, columns="bias")


# --- error consistency --------------------------------------------------------------------------------------------------


def test_compare_gives_the_error_consistency_of_single_answers(make_store: MakeStore) -> None:
    """40 items both right, 10 and 20 one of them, 30 neither: kappa 0.4, as computed by hand in test_agreement."""
    first, second = [True] * 50 + [False] * 50, [True] * 40 + [False] * 10 + [True] * 20 + [False] * 30
    store = make_store("s", {"lbgen": {"in-domain": [first]}, "sd15": {"in-domain": [second]}})
    found = compare(*systems(("lbgen", "sd15"), [store]))
    e = found[0].agreement
    assert e is not None and e.value == pytest.approx(0.4) and e.n == 100
    assert re.search(
        r"Cohen's kappa .*: in-domain 0\.40 \[0\.2\d, 0\.5\d\] n=100\.", to_markdown(found, ("lbgen", "sd15"))
    )
    (line,) = csv.DictReader(io.StringIO(to_csv(found)))
    assert float(line["kappa"]) == pytest.approx(0.4) and float(line["kappa_low"]) < 0.4 < float(line["kappa_high"])


def test_the_error_consistency_of_several_seeds_is_the_mean_over_their_pairs(stores: tuple[Path, Path]) -> None:
    from harness.stats.agreement import error_consistency

    found = {one.column.suite: one.agreement for one in compare(*systems(("lbgen", "sd15"), [stores[1]]))}
    right = np.stack([flags(IMAGES, 0.4 + 0.1 * place, seed) for place in (0, 1) for seed in range(3)], axis=1)
    pairs = [
        error_consistency(right, [(i, j)], population="", replicates=10).value for i in range(3) for j in range(3, 6)
    ]
    assert found["texture-bias"] is not None and found["texture-bias"].value == pytest.approx(
        np.mean(np.asarray(pairs, float))
    )
    assert found["in-domain"] is not None and found["linear-probe"] is None
    before = {one.column.suite: one.agreement for one in compare(*systems(("lbgen", "sd15"), [stores[0]]))}
    assert before["texture-bias"] is None and before["in-domain"] == found["in-domain"], (
        "TI alone does not say what was right"
    )


# --- resolution ---------------------------------------------------------------------------------------------------------


def measured(*runs: list[bool]) -> Value:
    """Return a value of one run a seed."""
    names = [str(i) for i in range(len(runs[0]))]
    parts = tuple((Part("x", flag_units("m", names, run)),) for run in runs)
    rate = float(np.mean(runs))
    return Value(
        Estimate(rate, rate - 0.03, rate + 0.03, len(names), "", ""),
        True,
        tuple((s, s) for s in range(len(runs))),
        parts=parts,
    )


def test_the_resolution_of_two_single_runs_by_hand() -> None:
    """100 items, 10 and 20 discordant: the variance of the difference is (0.3 - 0.01) / 99; 2.84 errors at 99 degrees of freedom."""
    first, second = [True] * 50 + [False] * 50, [True] * 40 + [False] * 10 + [True] * 20 + [False] * 30
    found = resolution([measured(first), measured(second)])
    assert found == pytest.approx(2.829 * np.sqrt((0.3 - 0.01) / 99), rel=0.002)


def test_the_resolution_is_that_of_the_pairs_with_most_seeds() -> None:
    """A pair of one and two seeds has one degree of freedom and says less."""
    two = [measured(flags(400, rate, i), flags(400, rate + 0.02, 9 + i)) for i, rate in enumerate((0.6, 0.7))]
    single = [measured(flags(400, 0.65, 20 + i)) for i in range(3)]
    alone = resolution(two)
    assert resolution([*single, *two]) == alone and alone is not None
    assert (resolution([single[0], two[0]]) or 0) > 1.3 * alone


def test_the_resolution_is_the_median_over_pairs_and_needs_two_values() -> None:
    values = [measured(flags(400, rate, i)) for i, rate in enumerate((0.5, 0.8, 0.95))]
    pairs = [resolution([values[i], values[j]]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert resolution(values) == sorted(pairs)[1]  # type: ignore[type-var]
    assert resolution(values[:1]) is None and resolution([values[0], values[0]]) is None, "equal runs have no error"


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_true_difference_of_the_resolution_is_found_in_four_of_five_cases(seeds: int) -> None:
    """Simulated: seeds that scatter by 0.15 logits and items of different difficulty; the resolution from worlds without a difference."""
    rng, n, spread = np.random.default_rng(5), 440, 0.15 if seeds > 1 else 0.0

    def world(shift: float) -> tuple[Value, Value]:
        items = rng.normal(0, 1.5, n)
        return tuple(
            measured(
                *(
                    (rng.random(n) < 1 / (1 + np.exp(-(1 + shift * side + items + rng.normal(0, spread))))).tolist()
                    for _ in range(seeds)
                )
            )
            for side in (0, 1)
        )  # type: ignore[return-value]

    sizes = [resolution(world(0.0)) for _ in range(60)]
    wanted = float(np.median(np.asarray(sizes, dtype=float)))
    logits = rng.normal(0, 1.5, 200_000)
    steps = np.linspace(0, 2, 201)
    gains = [
        float(np.mean(1 / (1 + np.exp(-(1 + s + logits[:20_000]))) - 1 / (1 + np.exp(-(1 + logits[:20_000])))))
        for s in steps
    ]
    shift = float(np.interp(wanted, gains, steps))
    worlds = 150
    power = np.mean([significantly_different(*world(shift)) for _ in range(worlds)])
    assert 0.68 < power < 0.92, (wanted, power)  # four standard errors about four fifths, and the error of the estimate


def test_the_resolution_stands_under_every_column_in_every_format(stores: tuple[Path, Path]) -> None:
    (table,) = build_tables(from_store(stores[1]), "all")
    column = next(c for c in table.columns if c.name == "top1")
    size = table.resolution(column, "resnet10")
    assert size is not None and 0.01 < size < 0.5
    text = f"{100 * size:.1f}"
    pages = {style: str(Board().render([stores[1]], style, False)) for style in ("md", "latex", "html")}
    assert f"| *resolution* | resnet10 | | {text} |" in pages["md"]
    assert rf"\emph{{resolution}} & resnet10 & {text} " in pages["latex"]
    foot = re.sub(r"\s+", "", pages["html"].partition("<tfoot>")[2].partition("</tfoot>")[0])
    assert f"<td>{text}</td>" in foot and "resolution" in foot
    screen = to_terminal([table], 80)
    assert f"\n  resolution {text}\n" in screen and max(map(len, screen.splitlines())) <= 80
    assert all("smallest true difference" in " ".join(page.split()) for page in (*pages.values(), screen))
    lines = json.loads(str(Board().render([stores[1]], "json", False)))
    assert {line["resolution"] for line in lines if line["metric"] == "top1"} == {size}
    assert {line["role"] for line in lines} == {"primary", "secondary"}


def test_checkpoints_of_different_backbones_are_told_apart_from_each_other(stores: tuple[Path, Path]) -> None:
    """Where a backbone has one row its resolution is that of all rows; a single row has none, and no line."""
    entries = [e for e in from_store(stores[0]) if e.record.suite == "in-domain"]
    mixed = [
        replace(e, record=replace(e.record, subject=replace(e.record.subject, backbone="vit")))
        if e.record.subject.generator == "sd15" else e for e in entries
    ]  # fmt: skip
    (same,), (apart,), (alone,) = (build_tables(part) for part in (entries, mixed, mixed[:1]))
    column = same.columns[0]
    assert (
        apart.resolution(apart.columns[0], "vit")
        == apart.resolution(apart.columns[0], "resnet10")
        == same.resolution(column, "resnet10")
    )
    assert alone.resolution(alone.columns[0], "resnet10") is None and "| *resolution*" not in to_page([alone])


def test_a_backbone_without_a_value_has_no_resolution_and_one_measurement_is_not_compared_with_itself(
    stores: tuple[Path, Path],
) -> None:
    entries = from_store(stores[0])
    vit = [
        replace(e, record=replace(e.record, key=f"{i:064x}", subject=replace(e.record.subject, backbone="vit")))
        for i, e in enumerate(entries) if e.record.suite != "in-domain"
    ]  # fmt: skip
    (table,) = build_tables([*entries, *vit])
    column = next(c for c in table.columns if c.suite == "in-domain")
    assert table.resolution(column, "resnet10") is not None and table.resolution(column, "vit") is None
    one = [e for e in entries if e.record.suite == "in-domain"][:1]
    shown_twice = [replace(e, record=replace(e.record, subject=replace(e.record.subject, backbone=name)))
                   for e in one for name in ("resnet10", "vit")]  # fmt: skip
    (table,) = build_tables(shown_twice)
    assert all(table.resolution(table.columns[0], key.backbone) is None for key in table.rows)


def test_a_part_of_the_board_keeps_the_resolution_of_the_whole(stores: tuple[Path, Path]) -> None:
    (table,) = build_tables(from_store(stores[0]))
    column, (first, *_) = table.columns[0], table.rows
    assert table.part([first], {column.suite}).resolution(column, first.backbone) == table.resolution(
        column, first.backbone
    )
