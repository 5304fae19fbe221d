"""What an evaluation from Python returns: the values, the rows behind them, and comparisons with others."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import UserError
from harness.results.frames import rows_frame, value_frame

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("suite", "item", "metric", "role", "direction", "unit", "value", "low", "high", "n", "method", "population", "remark",
           "checks", "failed_checks", "findings")  # fmt: skip
SHOWN = ("suite", "metric", "value", "low", "high", "n", "unit", "checks", "population")
"""Columns of the printed table; those of a validity check that failed are marked by ``checks``."""


@dataclass(frozen=True, repr=False)
class Results:
    """The results of one model: what ``harness.evaluate`` returns. Printing it prints the table, in a notebook too.

    Attributes:
        name: Name of the model on the leaderboard, e.g. ``checkpoint:resnet10t-1a2b3c``; ``read_rows(generator=name)`` finds it.
        store: Folder of the store that holds everything.
        keys: Content keys of the evaluations.
        not_run: What the suites asked for would also measure, and why it was not measured, a sentence each.
    """

    name: str
    store: Path
    keys: frozenset[str]
    not_run: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return one line per metric, in the order of the leaderboard.

        Returns:
            The columns ``suite``, ``item`` (part of the suite), ``metric``, ``role`` (``primary``, ``companion``, or ``mean`` over
            a group of metrics), ``direction`` (which values are better), ``unit``, ``value``, ``low``, ``high``, ``n`` (test
            items), ``method`` (of the interval), ``population`` (what the interval generalises to), ``remark``, ``checks``
            (``passed``, ``failed`` or ``none``), ``failed_checks`` and ``findings``. ``value`` and the ends of its 95 % interval,
            ``low`` and ``high``, are fractions if ``unit`` is ``fraction`` or ``ratio`` (0.57 is printed as 57), else points;
            NaN if undefined. A value whose ``checks`` failed is never ranked.

        Raises:
            UserError: a file of the store was changed or removed since.
        """
        from harness.results.leaderboard import board

        return value_frame(board().values_of((self.store, self.keys)))[list(COLUMNS)]

    def rows(self, suite: str, item: str = "") -> pd.DataFrame:
        """Return the stored rows of a suite: one line per test item, with the columns of ``harness.read_rows``.

        Args:
            suite: Suite id, e.g. ``texture-bias``.
            item: One item of the suite, e.g. ``dtd`` of ``linear-probe``; empty: all.

        Raises:
            DataMissing: this suite or item is not among the results.
            CorruptArtifact: the bytes of the file differ from its manifest.
        """
        return rows_frame(self.store, {"suite": suite} | ({"evaluation": item} if item else {}), self.keys)

    def compare(self, other: Results) -> pd.DataFrame:
        """Compare this model with another on their common test items, metric by metric.

        Args:
            other: Results of the same suites on the same data.

        Returns:
            One line per primary metric: ``metric``, ``first`` (this model), ``second`` (the other), ``difference`` (first -
            second) with its 95 % interval ``low`` to ``high``, its standard errors, ``n`` common items, ``p`` and ``p_holm``
            (Holm-adjusted over the table), ``method``, ``verdict`` (what the first is) and ``why``. Numbers are fractions or
            points, as in ``table``. ``kappa`` is the error consistency of the two in a suite's single answers (in-domain,
            texture-bias), with its interval ``kappa_low`` to ``kappa_high``; 0 for independent errors, 1 for the same.

        Raises:
            UserError: ``other`` is no ``Results``.
        """
        import pandas as pd

        from harness.results.leaderboard import board

        if not isinstance(other, Results):
            raise UserError(
                f"cannot compare with a {type(other).__name__}",
                "two results of harness.evaluate are compared",
                "evaluate the other model, too",
            )
        names = (self.name, other.name)
        text = board().compare_runs((self.store, self.keys), (other.store, other.keys), names)
        return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""]).rename(
            columns={"column": "metric"}
        )

    def _shown(self) -> pd.DataFrame:
        frame = self.table()
        return frame[[name for name in SHOWN if name != "checks" or (frame["checks"] != "none").any()]]

    def __repr__(self) -> str:
        return f"{self.name}\n{self._shown().to_string(index=False, float_format='{:.4f}'.format, na_rep='–')}"

    def _repr_html_(self) -> str:
        table = self._shown().to_html(index=False, float_format="{:.4f}".format, na_rep="–", border=0)
        return f"<p>{html.escape(self.name)}</p>\n{table}"
