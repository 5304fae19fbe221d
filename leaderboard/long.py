"""The board as a tidy table: one line per value, for pandas; as CSV, JSON and Parquet.

Columns, in this order (``None``: an empty field in CSV, null in JSON and Parquet):

system          name of the row as the board prints it: generator, with what tells it from other rows of that generator
generator       generator id
variant         what tells the row from other rows of its generator; empty if there are none
backbone        architecture id
origin          ``run``, or ``recorded`` for rows that ship with the project
supervision     supervision that the generator used, joined by ``+``
recipe          hash of the pre-training recipe; ``outside`` for imported checkpoints, empty if there is no network
profile         profile of the run
suite           suite id
suite_version   version of the suite
item            items of the suite behind the value, e.g. the data set; joined by blanks
metric          metric id, unique within the suite
column          the metric as the board prints it: with what tells its conditions from those of other columns
role            ``primary``; ``secondary``: of the further views of the board, never ranked; ``companion``: kept beside a primary
                metric, never ranked; ``mean``: mean over a group of metrics
measured        ``network``, or ``images``: measured on the generator's images, and repeated for each backbone trained on them
direction       which values are better: ``higher``, ``lower``, ``neither``
unit            ``fraction`` and ``ratio`` (0.57 is printed as 57), or ``points``
value           mean over seeds, in that unit; None if undefined
low, high       ends of the 95 % interval of sampling error; None if there is none
n               test items
method          how the interval was computed
population      what the interval generalises to
remark          why the value is undefined, or a remark on the interval
seeds           generator seed/train seed, joined by blanks
n_seeds         how many these are
seed_sd         standard deviation over seeds, in the unit of the value; None for one seed
checks          ``passed``, ``failed`` (shown, never ranked), or ``none``
failed_checks   names of the failed checks, joined by ``; ``
tie_group       1: best of its backbone or not significantly different from it, 2: the next group, ...; None if not ranked
class_list      hash of the ordered class list of the head
protocol        preprocessing, probe and the like, as the suite states them
data            data sets with their hashes, ``name=hash``, joined by blanks
findings        what contradicts the published data sets, joined by ``; ``
resolution      smallest true difference of two rows of this backbone that these items and seeds show in four of five cases (paired,
                two-sided 5 %), in the unit of the value; None without two rows

Two values may be compared if ``profile``, ``suite_version``, ``class_list``, ``protocol`` and ``data`` are equal.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.rows import RowKey
from leaderboard.sources import Entry
from leaderboard.tables import Column, Table, Value, build_tables

INTEGERS = ("suite_version", "n", "n_seeds", "tie_group")
NUMBERS = ("value", "low", "high", "seed_sd", "resolution")
COLUMNS = (
    "system", "generator", "variant", "backbone", "origin", "supervision", "recipe", "profile", "suite", "suite_version", "item",
    "metric", "column", "role", "measured", "direction", "unit", "value", "low", "high", "n", "method", "population", "remark",
    "seeds", "n_seeds", "seed_sd", "checks", "failed_checks", "tie_group", "class_list", "protocol", "data", "findings",
    "resolution",
)  # fmt: skip

Line = dict[str, Any]
"""Column to value: text, a number, or None."""


def long_table(entries: Sequence[Entry]) -> list[Line]:
    """Return one line per value of the board, companions included, in board order; ``pandas.DataFrame`` takes it as it is.

    Args:
        entries: Records with their units, as ``sources.gather`` returns them.

    Returns:
        Lines with the columns that the docstring of this module lists.
    """
    return [
        line(table, key, column, table.rows[key][column])
        for table in build_tables(entries, companions=True)
        for key in table.rows
        for column in table.columns
        if column in table.rows[key]
    ]


def line(table: Table, key: RowKey, column: Column, value: Value) -> Line:
    """Return the facts of one value, under ``COLUMNS``."""
    e, records = value.estimate, [entry.record for entry in value.sources]
    checked = any(record.checks for record in records)
    ranked = column.role in ("primary", "mean")
    data = {f"{name}={one}" for _, sets in column.terms.members for name, one in sets}
    found: Line = {
        "system": key.label, "generator": key.generator, "variant": key.variant, "backbone": key.backbone, "origin": key.origin,
        "supervision": "+".join(table.information.get(key, ())), "recipe": _joined(r.comparability.recipe for r in records),
        "profile": column.terms.profile, "suite": column.suite, "suite_version": column.terms.version,
        "item": _joined(record.item for record in records), "metric": column.metric, "column": column.name, "role": column.role,
        "measured": "images" if all(record.subject.backbone == "-" for record in records) else "network",
        "direction": column.better, "unit": column.unit, "value": e.value, "low": e.low, "high": e.high, "n": e.n,
        "method": e.method, "population": e.population, "remark": e.reason,
        "seeds": " ".join(f"{generator}/{train}" for generator, train in value.seeds), "n_seeds": len(value.seeds),
        "seed_sd": None if value.spread is None else value.spread.sd,
        "checks": "failed" if value.failed else "passed" if checked else "none", "failed_checks": "; ".join(value.failed),
        "tie_group": table.ties(column, key.backbone).get(key) if ranked else None,
        "class_list": column.terms.classes, "protocol": column.terms.protocol, "data": " ".join(sorted(data)),
        "findings": "; ".join(value.findings), "resolution": None if column.role == "companion" else table.resolution(column, key.backbone),
    }  # fmt: skip
    return found | {name: float(found[name]) for name in NUMBERS if found[name] is not None}


def _joined(texts: Any) -> str:
    return " ".join(sorted({text for text in texts if text}))


def to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a header and one line per value; floats in their shortest form that reads back as the same number."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if line[name] is None else line[name] for name in COLUMNS] for line in lines)
    return stream.getvalue()


def to_json(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a list of objects, as ``pandas.read_json`` reads it."""
    return json.dumps(list(lines), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_parquet(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Return one Parquet file; texts, 64-bit integers and doubles, nullable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(NUMBERS, pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(lines), schema=schema), stream)
    return stream.getvalue()
