"""Where every number of the HTML report comes from: shown when it is clicked."""

from __future__ import annotations

from typing import Any

from harness.store.records import Record
from leaderboard.exports import beside_texts
from leaderboard.network import facts_of, words
from leaderboard.rows import RowKey
from leaderboard.sources import Entry
from leaderboard.tables import Column, Table, Value, varied


class Facts:
    """The provenance of every shown number, each record once."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}
        self._networks: dict[str, str] = {}

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
            checks = [f"{k.name}: {'passed' if k.passed else 'FAILED'} ({k.value:.3g}, required {k.threshold:.3g}; {k.meaning})"
                      if k.value is not None else f"{k.name}: FAILED (undefined)" for k in r.checks]  # fmt: skip
            code = ", ".join(f"{name} {value}" for name, value in r.code.items() if value)
            rows = [("generator / train / probe seed", f"{s.generator_seed} / {s.train_seed} / {r.probe_seed}"),
                    ("supervision used", ", ".join(s.information)), ("validity", "; ".join(checks) or "no check"),
                    ("profile", c.profile), ("suite version", str(c.suite_version)),
                    ("data", ", ".join(f"{n} {v[:16]}" for n, v in sorted(c.data.items()))),
                    ("class list", c.classes), ("protocol", c.protocol),
                    ("network", self._network(r)), ("pre-training recipe", c.recipe), ("code", code),
                    ("findings", "; ".join(r.findings)), ("notes", "; ".join(r.notes)), ("cell", r.key),
                    *((f"made from: {path}", key) for path, key in sorted(r.inputs.items()))]  # fmt: skip
            self.records.append({"title": f"{r.suite} {r.item}", "rows": [row for row in rows if row[1]]})
        return self._places[r.key]

    def _network(self, record: Record) -> str:
        """Return the facts of a record's network in words; most records share theirs with others."""
        known = repr(record.subject.network)
        if known not in self._networks:
            self._networks[known] = ", ".join(words(facts_of(record)).values())
        return self._networks[known]


def _percent(value: float | None, scale: float) -> str:
    return "–" if value is None else f"{scale * value:.2f}"
