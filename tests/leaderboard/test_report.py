"""The HTML report, looked at by a real browser where there is one."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.core.cost import Cost
from harness.core.identity import content_key
from harness.stats.estimate import Estimate
from harness.store.records import Check, Metric, Record
from leaderboard import gallery
from leaderboard.board import Board
from leaderboard.charts import Axis, Point, lines, scatter
from leaderboard.pictures import panels
from leaderboard.sources import Entry
from leaderboard.tables import build_tables
from tests.leaderboard.conftest import MakeStore, flags, make_record, put, seal

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GENERATORS = ("real", "sd15", "lbgen", "genrobust", "realfake", "folder", "lbgen-released")
PROBE = """
<script>
const out = {errors: [], external: []};
window.onerror = message => out.errors.push(String(message));
addEventListener("load", () => {
  const table = document.querySelector("table");
  const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.includes("top1"));
  const read = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.v);
  table.tHead.rows[0].cells[column].click(); out.down = read();
  table.tHead.rows[0].cells[column].click(); out.up = read();
  table.tBodies[0].rows[0].cells[column].click();
  const box = document.getElementById("provenance");
  out.open = box.open; out.text = box.innerText; box.querySelector("button").click(); out.closed = !box.open;
  const ink = () => getComputedStyle(document.body).backgroundColor;
  const before = ink(); document.getElementById("theme").click(); out.themes = before !== ink();
  out.pictures = [...document.images].map(image => image.naturalWidth);
  out.charts = document.querySelectorAll("svg").length;
  out.external = performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:"));
  const shown = name => [...table.tHead.rows[0].cells].find(cell => cell.textContent.includes(name)).getBoundingClientRect();
  const frame = table.closest(".scroll");
  out.fits = frame.scrollWidth <= frame.clientWidth;
  out.important = ["top1", "TI", "CB_avg", "BG_Gap"].every(name => shown(name).width && shown(name).right <= innerWidth);
  out.others = shown("transfer").width > 0;
  document.getElementById("columns").click(); frame.scrollLeft = 200;
  out.sticky = Math.abs(table.tBodies[0].rows[0].cells[0].getBoundingClientRect().left - frame.getBoundingClientRect().left) < 3;
  out.wide = document.documentElement.scrollWidth <= innerWidth;
  document.documentElement.dataset.probe = JSON.stringify(out);
});
</script>"""


@pytest.fixture
def page(make_store: MakeStore) -> str:
    """Return the report of seven generators with samples, curves and costs; the last fails its validity check."""
    store = Path()
    for place, name in enumerate(GENERATORS):
        broken = {"checks": (Check("floor", False, 0.1, 0.5, "m"),)} if place == 6 else {}
        store = make_store("s", {name: {"in-domain": [flags(300, 0.4 + 0.07 * place, place)],
                                        "texture-bias": [flags(300, 0.3, place)]}}, **broken)  # fmt: skip
        for suite, metric in (("context-bias", "CB_avg"), ("background-bias", "BG_Gap")):
            made = make_record(suite, name, flags(300, 0.5, place))
            put(store, replace(made, metrics=(replace(made.metrics[0], name=metric),), suite_order=800), [])
        for amount in ("transfer@0.1", "transfer@0.5"):
            record = make_record("few-shot", name, flags(300, 0.4, place), key=content_key([amount, name]))
            metric = record.metrics[0].__class__(
                "d" + amount[8:], record.metrics[0].estimate, role="companion", group=amount, group_size=1
            )
            put(store, make_record("few-shot", name, [True], key=record.key, metrics=(metric,)), [])
    _artifacts(store)
    return Board().render([store], "html", False, published=True)


def _artifacts(store: Path) -> None:
    for name in GENERATORS:
        path = next(
            p
            for p in store.glob("evaluate/in-domain-*/record.json")
            if json.loads(p.read_text())["subject"]["generator"] == name
        )
        raw = json.loads(path.read_text())
        keys = {role: content_key([role, name]) for role in ("checkpoint", "copy")}
        raw["inputs"] = {"checkpoint": keys["checkpoint"], "checkpoint/copy": keys["copy"], **raw["inputs"]}
        path.write_text(json.dumps(raw))
        seal(path.parent, raw["key"])
        copy, trained = (
            store / "extract" / f"training-copy-{keys['copy'][:16]}",
            store / "pretrain" / f"r-{keys['checkpoint'][:16]}",
        )
        for folder in (copy, trained):
            folder.mkdir(parents=True)
        np.save(copy / "images.npy", np.random.default_rng(0).integers(0, 256, (36, 64, 64, 3), dtype=np.uint8))
        np.save(copy / "labels.npy", np.repeat(np.arange(12), 3))
        (trained / "log.jsonl").write_text(
            "".join(json.dumps({"epoch": e, "loss": 2.0 / (e + 1)}) + "\n" for e in range(9)) + '{"epo'
        )
        for folder, key in ((copy, keys["copy"]), (trained, keys["checkpoint"])):
            seal(folder, key)


def test_the_report_is_small_whole_and_fetches_nothing(page: str) -> None:
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page) and "@import" not in page and "url(" not in page
    html.parser.HTMLParser().feed(page)
    assert page.count("<img ") == len(GENERATORS) and "published (arXiv 2412.10831v3)" in page


def suppression_record(generator: str, seed: int, kept: dict[float, float], head: str = "") -> Record:
    """Return a record of one curve over non-local means, with a point of another cue whose name begins alike."""
    values = {f"without_texture_{level:g}": value for level, value in kept.items()} | {"without_texture_nlm_5": 0.11}
    mean = Metric(f"without_texture{head}", Estimate(0.5, 0.4, 0.6, 50, "m", "p"), "fraction", "neither", "secondary")
    points = [Metric(f"{name}{head}", Estimate(value, value - 0.1, value + 0.1, 50, "m", "p"), "fraction", "neither", "companion")
              for name, value in values.items()]  # fmt: skip
    return make_record("cue-suppression", generator, [True], seed, metrics=(mean, *points), suite_order=740)


@pytest.mark.parametrize("head", ["", "@7of16"])
def test_curves_of_cue_suppression_are_drawn_a_chart_per_cue_with_the_mean_of_the_seeds(
    tmp_path: Path, head: str
) -> None:
    records = [suppression_record("sd15", seed, {4.0: 0.9 - seed / 10, 8.0: 0.6 - seed / 10}, head) for seed in (0, 1)]
    records.append(suppression_record("real", 0, {4.0: 1.0, 8.0: 0.8}, head))
    (table,) = build_tables([Entry(record, "run") for record in records], "bias")
    (panel,) = panels(table, gallery.Gallery([tmp_path]))
    (chart,) = panel.charts
    assert chart.title == f"without_texture{head}, resnet10, %" and chart.x_title == "bilateral filter, px"
    assert [marker.label for marker in chart.markers] == [
        "real resnet10: 100.0", "real resnet10: 80.0", "sd15 resnet10: 85.0", "sd15 resnet10: 55.0",
    ]  # fmt: skip
    assert all(marker.bars for marker in chart.markers) and [line.name for line in chart.lines] == ["real", "sd15"]
    assert not panels(build_tables([Entry(record, "run") for record in records])[0], gallery.Gallery([tmp_path]))


def test_the_report_has_the_same_bytes_twice(make_store: MakeStore) -> None:
    results = {name: {"in-domain": [flags(100, 0.5, i)]} for i, name in enumerate(GENERATORS)}
    one, two = make_store("one", results), make_store("two", dict(reversed(results.items())))
    assert Board().render([one], "html", False) == Board().render([two], "html", False)
    assert str(one) not in Board().render([one], "html", False)


def test_text_from_outside_is_escaped(make_store: MakeStore) -> None:
    store = make_store(
        "s", {"<b>bold</b>": {"in-domain": [flags(50, 0.5, 0)]}}, notes=("</script><script>alert(1)</script>",)
    )
    text = Board().render([store], "html", False)
    assert "<b>bold</b>" not in text and "<script>alert" not in text and "&lt;b&gt;bold" in text


@pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed: sorting, pictures and printing are not looked at"
)
def test_chromium_opens_sorts_shows_and_prints_without_an_error(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page.replace("<body>", "<body>" + PROBE, 1), encoding="utf-8")
    base = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*base, "--window-size=1400,900", "--enable-logging=stderr", "--dump-dom", path.as_uri()],
                          capture_output=True, text=True, timeout=240, check=True)  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', done.stdout)[1]))  # type: ignore[index]
    assert found["errors"] == [] and found["external"] == []
    ranked = [float(v) for v in found["down"] if v]
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == 6 and found["down"][-1] == found["up"][-1] == ""
    assert [float(v) for v in found["up"] if v] == sorted(ranked)
    assert found["open"] and found["closed"] and found["themes"] and found["wide"]
    assert (
        "95 % interval" in found["text"]
        and "made from: checkpoint/copy" in found["text"]
        and "commit abc" in found["text"]
    )
    assert len(found["pictures"]) == len(GENERATORS) and min(found["pictures"]) > 100 and found["charts"] >= 4
    done = subprocess.run([*base, "--window-size=500,900", "--dump-dom", path.as_uri()],
                          capture_output=True, text=True, timeout=240, check=True)  # fmt: skip
    narrow = json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', done.stdout)[1]))  # type: ignore[index]
    for size in (found, narrow):
        assert size["fits"] and size["important"] and size["sticky"], (
            "nothing important needs scrolling, and the name stays"
        )
    assert found["others"] and not narrow["others"], "what a narrow screen has no room for comes with a button"
    pdf = tmp_path / "report.pdf"
    subprocess.run([*base, f"--print-to-pdf={pdf}", path.as_uri()], capture_output=True, timeout=240, check=True)
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000


def test_a_torn_last_line_of_a_log_is_left_out_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch": 0, "loss": 1}\n{"epoch": 1, "lo')
    assert gallery.read_log(path) == ([{"epoch": 0, "loss": 1}], True)
    path.write_text('{"epoch": 0, "lo\n{"epoch": 1, "loss": 1}\n')
    with pytest.raises(gallery.Unreadable, match="log.jsonl: line 1 is damaged"):
        gallery.read_log(path)


def test_a_damaged_log_or_manifest_costs_its_picture_alone_and_is_named(
    make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store("s", {name: {"in-domain": [flags(50, 0.5, i)]} for i, name in enumerate(GENERATORS)})
    _artifacts(store)
    whole = Board().render([store], "html", False)
    first, second = sorted(store.glob("pretrain/*"))[:2]
    (first / "log.jsonl").write_text('{"epoch": 0, "lo\n{"epoch": 1, "loss": 1}\n')
    (second / "manifest.json").write_text('{"key":')
    page = Board().render([store], "html", False)
    told = capsys.readouterr().err
    for name in (f"pretrain/{first.name}/log.jsonl", f"pretrain/{second.name}/manifest.json"):
        assert name in page and name in told and name not in whole
    assert page.count("<img ") == whole.count("<img ") == len(GENERATORS) and str(store) not in page


def test_the_cost_of_shards_is_their_sum_and_a_dash_where_nobody_counted(tmp_path: Path) -> None:
    key = "ab" * 32
    folder = tmp_path / "synthesise" / f"sd15-{key[:16]}"
    folder.mkdir(parents=True)
    (folder / "images.jsonl").write_text("{}\n" * 30)
    counted = {
        "files": {"shards/a.tar": {"bytes": 1}},
        "wall_seconds": 10.0,
        "cpu_seconds": 20.0,
        "shard_costs": {"a": [9.5, 19.5]},
    }
    for change, expected in (({}, Cost(10.0, 20.0)), ({"wall_seconds": None, "cpu_seconds": None}, None)):
        (folder / "manifest.json").write_text(json.dumps(counted | change))
        found = gallery.cost([tmp_path], key)
        assert found is not None and (found.spent, found.images) == (expected, 30)
    del counted["shard_costs"]  # a store of an older version timed the joining of its shards alone
    (folder / "manifest.json").write_text(json.dumps(counted))
    found = gallery.cost([tmp_path], key)
    assert found is not None and found.spent is None


def test_values_say_their_own_seeds(make_store: MakeStore) -> None:
    runs = [flags(100, 0.5, seed) for seed in range(3)]
    store = make_store("s", {"sd15": {"a-probe": runs, "in-domain": runs, "texture-bias": runs, "coco": runs[:1]}})
    page, latex = (Board().render([store], style, False) for style in ("html", "latex"))
    row = page.partition("<tbody>")[2].partition("</tr>")[0]
    assert "<small>3 seeds</small>" in row.partition("<td")[0] and row.count("<small>sd ") == 3
    assert row.count("<small>1 seed</small>") == 1
    assert (
        "has its own column" not in page
        and "beneath them sd" in page
        and r"$\pm$: standard deviation over seeds" in latex
    )
    board = Board().render([store], "md", False)
    assert "| sd15 | resnet10 | 1 seed |" in board.partition("### coco")[2].partition("###")[0]
    assert "3 seeds" in board.partition("### texture-bias")[2].partition("###")[0]


def test_charts_place_marks_inside_their_frame() -> None:
    points = [Point(float(x), x * 10.0, f"p{x}", x, x * 10 - 5, x * 10 + 5) for x in range(1, 6)]
    for drawn in (scatter("t", "x", points), lines("t", "x", [("s", 0, points)], logarithmic=True)):
        assert drawn is not None
        places = [(marker.x, marker.y) for marker in drawn.markers]
        assert len(places) == 5 and all(46 <= x <= 408 and 26 <= y <= 210 for x, y in places)
    assert Axis.over("", [0.0, 100.0]).ticks() == [0, 20, 40, 60, 80, 100]
    assert scatter("t", "x", []) is None


def test_the_columns_of_the_page_are_in_the_order_of_the_markdown_board(make_store: MakeStore) -> None:
    results = {suite: [flags(100, 0.5, 0)] for suite in ("texture-bias", "in-domain", "coco", "a-probe")}
    store = make_store("s", {"sd15": results, "real": results})
    page, board = (Board().render([store], style, False) for style in ("html", "md"))
    suites = re.findall(r"^### (\S+)$", board, re.MULTILINE)
    in_order = {"in-domain": "top1", "texture-bias": "TI"}
    assert len(suites) == 4 and _heads(page) == [in_order.get(suite, suite) for suite in suites]


def _heads(page: str) -> list[str]:
    """Return the names of the columns of the first table."""
    first = page.partition("<thead>")[2].partition("</thead>")[0]
    names = re.findall(r'<th data-sort="(?:higher|lower|neither)".*?>(.*?)</th>', first, re.DOTALL)
    return [
        re.sub(r"<small>.*</small><br>|<small.*|<wbr>|&nbsp;.", "", name, flags=re.DOTALL).strip() for name in names
    ]


def test_the_page_gives_the_formula_of_every_metric(make_store: MakeStore) -> None:
    """As its suite declares it; a dash for a suite that is not installed."""
    from harness.plugins.registry import suites
    from harness.results.leaderboard import board

    store = make_store("s", {"sd15": {"texture-bias": [flags(100, 0.5, 0)], "gone": [flags(100, 0.5, 0)]}})
    page = board().render([store], "html", False)
    assert isinstance(page, str)
    metrics = page.partition('<div id="metrics"')[2].partition("</div>\n</div>")[0]
    formula = suites().get("texture-bias").card.formula
    assert f"<td>{html.escape(formula)}</td>" in metrics and "<tr><td>texture-bias</td><td>TI</td>" in metrics
    assert "<tr><td>gone</td><td>gone</td><td>–</td><td>–</td><td>–</td></tr>" in metrics
    assert f'title="{html.escape(formula)}"' in page, "and at the head of its column"


def test_no_module_holds_html() -> None:
    """Templates with automatic escaping write all of it."""
    for path in (Path(__file__).parents[2] / "leaderboard").glob("*.py"):
        assert not re.search(r"</?(td|th|tr|p|h\d|div|span|small|svg|script|li|ul|b)[ >]", path.read_text("utf-8")), (
            path
        )


def test_every_template_is_package_data() -> None:
    import fnmatch
    import tomllib

    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"][
        "leaderboard"
    ]
    files = [path.relative_to(root / "leaderboard").as_posix() for path in (root / "leaderboard" / "page").iterdir()]
    assert "page/report.html" in files
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in files)
