"""One self-contained HTML page: tables, charts, samples, cost, and the provenance of every number one click away."""

from __future__ import annotations

import html
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

from leaderboard import charts, gallery
from leaderboard.charts import Point
from leaderboard.exports import ACCURACY, MATCHED, beside_texts, by_accuracy, doubt, legend, mark, matched
from leaderboard.footnotes import footnotes
from leaderboard.gallery import Gallery
from leaderboard.network import facts_of, words
from leaderboard.rows import RowKey
from leaderboard.sources import Entry
from leaderboard.tables import Column, Table, Value, varied

SPREAD_NOTE = "beneath them sd, the standard deviation over seeds, and how many these are where a row has others"
COST_NOTE = "Seconds are summed over workers; images/s is that of one worker. –: not known."
ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}


class Facts:
    """The provenance of every shown number, each record once."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}

    def add(self, table: Table, key: RowKey, column: Column, value: Value) -> int:
        """Keep the facts of one value and return its number."""
        e, scale = value.estimate, column.scale
        rows = [("value", _percent(e.value, scale)), ("95 % interval", f"{_percent(e.low, scale)} to {_percent(e.high, scale)}"),
                ("n", str(e.n)), ("method", e.method), ("generalises to", e.population), ("seeds", varied(value.seeds))]  # fmt: skip
        if value.spread is not None:
            rows.append(("standard deviation over seeds", _percent(value.spread.sd, scale)))
        if len(value.seeds) > 1:
            by_seed = (f"{g}/{t}: {_percent(one.value, scale)}" for (g, t), one in sorted(value.by_seed.items()))
            rows.append(("by generator/train seed", ", ".join(by_seed)))
        rows += zip(table.beside(column), beside_texts(table, key, column, 2), strict=True)
        if e.reason:
            rows.append(("remark", e.reason))
        title = f"{column.title} · {key.label} · {key.backbone}"
        records = [self._record(entry) for entry in value.sources]
        self.values.append({"title": title, "rows": rows, "records": records})
        return len(self.values) - 1

    def _record(self, entry: Entry) -> int:
        r = entry.record
        if r.key not in self._places:
            self._places[r.key] = len(self.records)
            s, c = r.subject, r.comparability
            checks = [f"{k.name}: {'passed' if k.passed else 'FAILED'} ({k.value:.3g}, wanted {k.threshold:.3g}; {k.meaning})"
                      if k.value is not None else f"{k.name}: FAILED (undefined)" for k in r.checks]  # fmt: skip
            code = ", ".join(f"{name} {value}" for name, value in r.code.items() if value)
            rows = [("generator / train / probe seed", f"{s.generator_seed} / {s.train_seed} / {r.probe_seed}"),
                    ("told", ", ".join(s.information)), ("validity", "; ".join(checks) or "no check"), ("profile", c.profile),
                    ("suite version", str(c.suite_version)), ("data", ", ".join(f"{n} {v[:16]}" for n, v in sorted(c.data.items()))),
                    ("class list", c.classes), ("protocol", c.protocol),
                    ("network", ", ".join(words(facts_of(r)).values())), ("pre-training recipe", c.recipe), ("code", code),
                    ("findings", "; ".join(r.findings)), ("notes", "; ".join(r.notes)), ("cell", r.key),
                    *((f"made from: {path}", key) for path, key in sorted(r.inputs.items()))]  # fmt: skip
            self.records.append({"title": f"{r.suite} {r.item}", "rows": [row for row in rows if row[1]]})
        return self._places[r.key]


def _percent(value: float | None, scale: float) -> str:
    return "–" if value is None else f"{scale * value:.2f}"


def to_html(tables: list[Table], shown: Gallery, published: bool, generators: str) -> str:
    """Return the page, with what the ``generators`` declare as Markdown; no network, no time, no path of this machine."""
    facts = Facts()
    parts, links = [], []
    for number, table in enumerate(tables):
        links.append((f"t{number}", table.title))
        parts.append(f'<h2 id="t{number}">{html.escape(table.title)}</h2>')
        parts += [f"<p><b>{html.escape(note)}</b></p>" for note in table.notes]
        parts += _tables(table, facts) + _footnotes(table) + _pictures(table, shown)
    if generators:
        links.append(("generators", "generators"))
        parts.append(f'<div id="generators">{from_markdown(generators)}</div>')
    if published:
        from leaderboard.published import to_markdown

        links.append(("published", "published numbers"))
        parts.append(f'<div id="published">{from_markdown(to_markdown())}</div>')
    if shown.left_out:
        links.append(("left-out", "left out"))
        names = "".join(f"<li>{html.escape(name)}</li>" for name in shown.left_out)
        parts.append(f'<h2 id="left-out">left out</h2><p>Pictures and costs of damaged files:</p><ul>{names}</ul>')
    page = importlib.resources.files("leaderboard").joinpath("page")
    style, script = (page.joinpath(name).read_text("utf-8") for name in ("style.css", "script.js"))
    data = json.dumps({"values": facts.values, "records": facts.records}, sort_keys=True).replace("<", "\\u003c")
    index = "".join(f'<a href="#{anchor}">{html.escape(text)}</a>' for anchor, text in links)
    told = html.escape(legend(SPREAD_NOTE).replace("*recorded*", "Recorded"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>Bias of training data</title><style>{style}</style></head><body>'
        '<h1>Bias of training data: leaderboard</h1><p class="soft">Click a number for its provenance, a column head to sort. '
        f'{told}</p><nav>{index}<button id="theme">light / dark</button></nav>{"".join(parts)}'
        f'<dialog id="provenance"></dialog><script type="application/json" id="facts">{data}</script>'
        f"<script>{script}</script></body></html>\n"
    )


# --- tables -------------------------------------------------------------------------------------------------------------


def _tables(table: Table, facts: Facts) -> list[str]:
    """Return one table of the main columns, and one per suite whose members the main one leaves out."""
    by_suite = {c.suite: [column for column in table.columns if column.suite == c.suite] for c in table.columns}
    means = {suite: [column for column in columns if column.position] for suite, columns in by_suite.items()}
    first = [suite for suite in (ACCURACY, *MATCHED) if suite in by_suite]  # what is asked first stands first
    main = [column for suite in dict.fromkeys([*first, *by_suite]) for column in means[suite] or by_suite[suite]]
    parts = [_grid(table, main, facts, whole_names=True)]
    for suite, columns in by_suite.items():
        if means[suite] and len(columns) > len(means[suite]):
            parts.append(f"<h3>{html.escape(suite)}: its parts</h3>" + _grid(table, columns, facts))
    return parts


def _footnotes(table: Table) -> list[str]:
    lines = "".join(f"<li>{html.escape(note)}</li>" for note in footnotes(table))
    return [f'<ul class="soft">{lines}</ul>'] if lines else []


def _grid(table: Table, columns: Sequence[Column], facts: Facts, whole_names: bool = False) -> str:
    keys = [key for key in table.rows if any(column in table.rows[key] for column in columns)]
    names = [(c, _breakable(html.escape(c.name))) for c in columns]
    if whole_names:
        names = [
            (c, f"<small>{html.escape(c.suite)}</small><br>{name}" if c.suite != c.name else name) for c, name in names
        ]
    heads = "".join(f'<th data-sort="{c.better}">{name}{ARROWS[c.better]}</th>' for c, name in names)
    rows = "".join(_row(table, key, columns, facts) for key in keys)
    first = "".join(f'<th class="name" data-sort="text">{name}</th>' for name in ("generator", "backbone"))
    return f'<div class="scroll"><table><thead><tr>{first}{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _breakable(name: str) -> str:
    """Return a column's name that may be broken where it is long."""
    return name.replace("_", "_<wbr>").replace("@", "@<wbr>") if len(name) > 10 else name


def _row(table: Table, key: RowKey, columns: Sequence[Column], facts: Facts) -> str:
    seeds, told = table.seeds(key), "+".join(table.information.get(key, ()))
    small = ("recorded, " if key.origin == "recorded" else "") + _count(len(seeds))
    facts_here = html.escape(f"{varied(seeds)}; told: {told}", quote=True)
    cells = [f'<th scope="row" class="name" title="{facts_here}"><b>{html.escape(key.label)}</b><small>{small}</small></th>',
             f'<td class="name">{html.escape(key.backbone)}</td>']  # fmt: skip
    return f"<tr>{''.join([*cells, *(_cell(table, key, column, facts) for column in columns)])}</tr>"


def _count(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "1 seed"


def _cell(table: Table, key: RowKey, column: Column, facts: Facts) -> str:
    value = table.rows[key].get(column)
    if value is None:
        return '<td data-v="">–</td>'
    e, scale, number = value.estimate, column.scale, facts.add(table, key, column, value)
    if e.value is None:
        return f'<td data-v="" data-p="{number}">undefined<small>{html.escape(e.reason[:40])}</small></td>'
    sign, text = mark(table, key, column), f"{scale * e.value:.1f}{doubt(value)}"
    shown = (
        f"<b>{text}*</b>"
        if sign == "*"
        else f'<span class="bad">{text}!</span>'
        if sign == "!"
        else f"{text} {sign}".strip()
    )
    small = [] if e.low is None or e.high is None else [f"{scale * e.low:.1f} – {scale * e.high:.1f}"]
    beside = zip(table.beside(column), beside_texts(table, key, column), strict=True)
    small += [f"{_breakable(html.escape(name))} {number}" for name, number in beside]
    small += [f"sd {scale * value.spread.sd:.2f}"] if value.spread is not None else []
    small += [_count(len(value.seeds))] if len(value.seeds) != len(table.seeds(key)) else []
    failed = html.escape(", ".join(value.failed), quote=True)
    small += [f'<span title="failed: {failed}">not ranked</span>'] if not value.valid else []
    ranked = repr(float(e.value)) if value.valid else ""
    return f'<td data-v="{ranked}" data-p="{number}">{shown}{"".join(f"<small>{line}</small>" for line in small)}</td>'


def from_markdown(text: str) -> str:
    """Return headings, paragraphs and tables of simple Markdown as HTML."""
    parts: list[str] = []
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([html.escape(cell.strip()) for cell in line.strip("|").split("|")])
            continue
        if rows:
            body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows[2:])
            head = "".join(f"<th>{cell}</th>" for cell in rows[0])
            parts.append(
                f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
            )
            rows = []
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            parts.append(f"<h{level}>{html.escape(line.lstrip('# '))}</h{level}>")
        elif line.strip():
            parts.append(f"<p>{html.escape(line)}</p>")
    return "".join(parts)


# --- pictures -----------------------------------------------------------------------------------------------------------


def _pictures(table: Table, shown: Gallery) -> list[str]:
    names = sorted({key.label for key in table.rows})
    colours = {name: i for i, name in enumerate(names)}
    found = [
        ("bias, with 95 % intervals", _bias(table, colours)),
        ("bias against in-domain accuracy: compare neighbours", _accuracy(table, colours)),
        ("few-shot transfer: mean over data sets by share of training images", _few_shot(table, colours)),
        ("training loss of the first seed", _training(table, colours, shown)),
    ]
    parts = []
    for title, drawn in found:
        if any(drawn):
            key = charts.legend(list(colours.items()))
            parts.append(f'<h3>{title}</h3>{key}<div class="charts">{"".join(drawn)}</div>')
    return parts + _samples(table, shown) + _costs(table, shown)


def _point(x: float, column: Column, key: RowKey, value: Value, colour: int) -> Point | None:
    e, scale = value.estimate, column.scale
    if e.value is None:
        return None
    low, high = (None if end is None else scale * end for end in (e.low, e.high))
    flag = "" if value.valid else " (not ranked)"
    label = f"{key.label} {key.backbone}: {scale * e.value:.1f}{flag}"
    return Point(x, scale * e.value, label, colour, low, high, hollow=not value.valid)


def _backbones(table: Table) -> list[str]:
    return sorted({key.backbone for key in table.rows if key.backbone != "-"})


def _bias(table: Table, colours: dict[str, int]) -> list[str]:
    found = matched(table)
    drawn = []
    for backbone in _backbones(table) if found else []:
        for column in found[1] if found else []:
            keys = [key for key in table.rows if key.backbone == backbone and column in table.rows[key]]
            points = [_point(i, column, key, table.rows[key][column], colours[key.label]) for i, key in enumerate(keys)]
            title = f"{column.name}{ARROWS[column.better]}, {backbone}"
            drawn.append(charts.dots(title, [key.label for key in keys], [p for p in points if p]))
    return drawn


def _accuracy(table: Table, colours: dict[str, int]) -> list[str]:
    found = matched(table)
    if found is None:
        return []
    accuracy, biases = found
    drawn = []
    for backbone in _backbones(table):
        for column in biases:
            points = []
            for key in by_accuracy(table, accuracy, [column]):
                first = table.rows[key][accuracy].estimate
                if key.backbone == backbone and first.value is not None:
                    point = _point(100 * first.value, column, key, table.rows[key][column], colours[key.label])
                    points += [point] if point else []
            drawn.append(charts.scatter(f"{column.name}{ARROWS[column.better]}, {backbone}", "in-domain top-1", points))
    return drawn


def _few_shot(table: Table, colours: dict[str, int]) -> list[str]:
    columns = [(_share(column), column) for column in table.columns if column.suite in ("few-shot", "linear-probe")]
    drawn = []
    for backbone in _backbones(table):
        series = []
        for key in (key for key in table.rows if key.backbone == backbone):
            points: dict[float, Point] = {}
            for share, column in columns:
                if share is not None and column in table.rows[key]:
                    point = _point(share, column, key, table.rows[key][column], colours[key.label])
                    points |= {share: point} if point else {}
            series.append((key.label, colours[key.label], list(points.values())))
        drawn.append(charts.lines(f"top-1, {backbone}", "share of the training images", series, logarithmic=True))
    return drawn


def _share(column: Column) -> float | None:
    """Return the share of training images of a mean over data sets, or None for other columns."""
    name, _, amount = column.metric.partition("@")
    if not column.position or column.rank or name != "transfer":
        return None
    try:
        return float(amount or 1)
    except ValueError:  # so many shots, no share
        return None


def _training(table: Table, colours: dict[str, int], shown: Gallery) -> list[str]:
    drawn = []
    for backbone in _backbones(table):
        keys = [key for key in table.rows if key.backbone == backbone]
        drawn.append(_curves(f"pre-training of {backbone}", "epoch", table, keys, "checkpoint", colours, shown))
    return [*drawn, _curves("fit of the generator", "step", table, list(table.rows), "weights", colours, shown)]


def _curves(title: str, unit: str, table: Table, keys: Sequence[RowKey], role: str, colours: dict[str, int],
            shown: Gallery) -> str:  # fmt: skip
    """Return the loss of each row's artifact of a role, each generator once."""
    series: dict[str, tuple[str, int, list[Point]]] = {}
    for key in keys:
        made = _input(table, key, role)
        curve = shown.loss_curve(made) if made else []
        if curve and key.label not in series:
            colour = colours[key.label]
            series[key.label] = (key.label, colour, [Point(x, y, key.label, colour) for x, y in curve])
    return charts.lines(title, unit, list(series.values()))


def _input(table: Table, key: RowKey, role: str) -> str:
    """Return the key of a row's input of a role, or an empty text."""
    inputs = gallery.inputs_of(table, key)
    return next((made for path, made in sorted(inputs.items()) if path.split("/")[-1] == role), "")


def _rows_with(table: Table, role: str) -> dict[str, str]:
    """Return row label to the key of an input of its first seed, each input once."""
    found: dict[str, str] = {}
    for key in table.rows:
        made = _input(table, key, role)
        if made and made not in found.values():
            found[key.label] = made
    return found


def _samples(table: Table, shown: Gallery) -> list[str]:
    figures = []
    for label, key in _rows_with(table, "copy").items():
        picture = shown.sample_grid(key)
        if picture:
            name = html.escape(label, quote=True)
            figures.append(
                f'<figure><img src="{picture}" alt="samples of {name}"><figcaption>{name}</figcaption></figure>'
            )
    note = (
        "First images of the first classes, one class a column; generators with one sampler start from the same noise."
    )
    return [f'<h3>samples</h3><p class="soft">{note}</p>', *figures] if figures else []


def _costs(table: Table, shown: Gallery) -> list[str]:
    rows: list[tuple[str, str]] = []
    for key in table.rows:
        inputs = gallery.inputs_of(table, key)
        for path, made in sorted(inputs.items(), key=lambda item: -item[0].count("/")):
            role = path.split("/")[-1]
            spent = shown.cost(made) if role in ("weights", "dataset", "copy", "checkpoint") else None
            if spent is not None and not any(made == row[0] for row in rows):
                took, mib = spent.spent, f"{spent.bytes / 2**20:.1f}"
                times = [f"{took.wall_seconds:.0f}", f"{took.cpu_seconds:.0f}"] if took else ["–", "–"]
                speed = (
                    f"{spent.images / took.wall_seconds:.1f}" if took and spent.images and took.wall_seconds else "–"
                )
                cells = [key.label, key.backbone if role == "checkpoint" else "", spent.kind, *times, speed, mib]
                rows.append((made, "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)))
    if not rows:
        return []
    names = ("generator", "backbone", "work", "seconds", "CPU-seconds", "images/s", "MiB")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{cells}</tr>" for _, cells in rows)
    return [
        f'<h3>cost, first seed</h3><p class="soft">{COST_NOTE}</p>',
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>',
    ]
