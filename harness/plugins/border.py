"""Where a plugin's results enter the harness: what it returns is checked, and its exceptions are reported as its own."""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NoReturn

from harness.core.errors import UserError
from harness.core.fields import unfit_name, wrong_field
from harness.core.identity import canonical_json
from harness.core.memory import explain_memory
from harness.plugins.generator import Generator
from harness.plugins.suite import ColumnKind, Item, NotPlanned, Score, Suite
from harness.stats.difference import Units
from harness.stats.estimate import Estimate
from harness.stats.sound_units import unfit_units
from harness.store.records import Check, Metric

if TYPE_CHECKING:
    import pandas as pd

    from harness.core.settings import Settings
    from harness.images.request import Request
    from harness.plugins.context import Context

BUILT_IN = ("harness", "generators", "suites")
"""Top-level packages of the project itself."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
_RANGES = {"fraction": (0.0, 1.0), "points": (-100.0, 100.0)}
"""Unit of a metric to the values it can have; a ``ratio`` has no ends."""
_ROUNDING = 1e-9
"""Share of a unit's range below which two numbers differ by rounding only."""
_SAME_VALUE = 1e-4
"""Share of a unit's range by which the value of units may differ from the metric's own: less than any board prints."""
_NAMING = ("item", "image")
"""Columns of rows that name the test item, whether or not they are in the key."""


class PluginFailed(UserError):
    """Report an exception that was raised by a plugin's code (exit code 1)."""

    code = 1

    @property
    def fault(self) -> str:
        """Return what went wrong in which plugin, with file and line, in one line."""
        return f"{self.what}: {self.why}"


class ContractBroken(PluginFailed):
    """Report what a plugin's code returned and may not (exit code 1)."""


@contextmanager
def plugin_errors(plugin: Generator[Any] | Suite[Any]) -> Iterator[None]:
    """Report any exception raised in the block as the plugin's.

    Raises:
        PluginFailed: anything but a ``UserError``, a failing disk or a lack of memory, which pass; it names plugin, exception and
            place.
    """
    owners = {owner.__module__ for owner in type(plugin).__mro__ if not owner.__module__.startswith("harness.")}
    with code_errors(f"{_kind(plugin)} {plugin.card.id!r}", (*owners,)):
        yield


@contextmanager
def code_errors(name: str, modules: Sequence[str]) -> Iterator[None]:
    """Report any exception raised in the block as that of the code in ``modules``; see ``plugin_errors``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (isinstance(error, OSError) and error.errno in _DISK) or explain_memory(error):
            raise
        tops = {module.partition(".")[0] for module in modules} - {"abc", "builtins", "typing"}
        words = " ".join(str(error).split())[:300]
        own = tops <= set(BUILT_IN)
        raise PluginFailed(
            f"{name} failed: {type(error).__name__}" + (f": {words}" if words else ""),
            _place(error, tops),
            "this is a bug of the harness; please report it with the log"
            if own
            else f"correct the plugin, or report it to its authors with the log (package {', '.join(sorted(tops - set(BUILT_IN)))})",
        ) from error


def _place(error: Exception, tops: set[str]) -> str:
    """Return file and line of the innermost frame inside the packages, or that no frame is."""
    inside = [
        (frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in tops
    ]
    if not inside:
        return "raised while the harness called it; the log has the traceback"
    path, line, function = inside[-1]
    return f"raised at {path}:{line} in {function}"


def guarded(generator: Generator[Any], ctx: Context, request: Request) -> Iterator[Any]:
    """Yield what a generator makes of a request; its exceptions are reported as its own."""
    with plugin_errors(generator):
        yield from generator.synthesise(ctx, request)


def planned_items(suite: Suite[Any], settings: Settings, arch: str) -> Sequence[Item]:
    """Return the suite's items.

    Raises:
        NotPlanned: the suite does not measure this architecture.
        PluginFailed: it raised something else, something is no Item or holds what an item cannot, or two are the same evaluation.
    """
    reason: NotPlanned | None = None
    items: Sequence[Item] = ()
    with plugin_errors(suite):
        try:
            items = tuple(suite.items(settings, arch))
        except NotPlanned as error:
            reason = error
    if reason is not None:
        raise reason
    for item in items:
        if not isinstance(item, Item):
            _refuse(suite, "items", f"items returned {_word(item)}", "return Item objects")
        if why := _wrong_item(item):
            _refuse(suite, "items", why, "correct that argument of Item")
    counts = Counter((item.label, item.probe_seed) for item in items)
    (label, seed), count = counts.most_common(1)[0] if counts else (("", 0), 0)
    if count > 1:
        _refuse(
            suite,
            "items",
            f"items returned {count} items with the label {label!r} and probe seed {seed}",
            "give every evaluation a label of its own; repetitions differ in probe_seed",
        )
    return items


def _wrong_item(item: Item) -> str:
    if why := unfit_name(item.label):
        return f"the label of an item {why}"
    if why := wrong_field(item) or next((why for why in map(wrong_field, item.derived_inputs) if why), ""):
        return f"item {item.label!r}: {why}"
    try:
        canonical_json([item.params, [need.params for need in item.derived_inputs]])
    except (TypeError, ValueError) as error:
        return f"item {item.label!r}: its params are not JSON: {error}"
    return ""


def checked_rows(suite: Suite[Any], rows: Any) -> pd.DataFrame:
    """Return the suite's rows if they are what ``Suite.rows`` promises.

    Raises:
        UserError: not a DataFrame; a declared column is missing or of another kind; a row comes twice. It names suite and column.
    """
    import pandas as pd

    if not isinstance(rows, pd.DataFrame):
        _refuse(suite, "rows", f"rows returned {_word(rows)}", "return a pandas DataFrame with one row per test item")
    odd = [name for name, n in Counter(rows.columns).items() if n > 1 or not isinstance(name, str)]
    if odd:
        _refuse(
            suite, "rows", f"column {odd[0]!r} of its rows comes twice or is not a string", "name every column once"
        )
    for name, kind in suite.columns.items():
        if name not in rows:
            have = ", ".join(map(str, rows.columns))
            _refuse(suite, "rows", f"its rows have no column {name!r} (they have {have})", f"add it, as {kind}")
        if not _is_kind(rows[name], kind):
            _refuse(
                suite,
                "rows",
                f"column {name!r} of its rows is {rows[name].dtype}",
                f"make it {kind}, without missing values",
            )
    key = list(suite.row_key or rows.columns)
    lost = [name for name in key if name not in rows]
    if lost:
        _refuse(suite, "rows", f"its rows have no column {lost[0]!r}", "row_key names columns of the rows")
    again = rows.duplicated(key) if suite.row_key else rows.map(_hashable).duplicated()
    if len(rows) and again.any():
        shown = ", ".join(f"{name}={_plain(rows[name][again].iloc[0])!r}" for name in key[:3])
        _refuse(
            suite,
            "rows",
            f"{int(again.sum())} of {len(rows)} rows repeat another, such as {shown}",
            f"return one row per test item; {', '.join(key[:3])} must tell rows apart",
        )
    return rows


def checked_names(suite: Suite[Any], rows: pd.DataFrame) -> None:
    """Refuse names of test items that a store cannot hold.

    Raises:
        UserError: a text in a column of ``row_key``, ``item`` or ``image`` is empty or holds a control character.
    """
    for column in dict.fromkeys((*suite.row_key, *_NAMING)):
        if column not in rows or not len(rows) or not isinstance(rows[column].iloc[0], str):
            continue
        for name in rows[column].unique():
            if why := unfit_name(name):
                _refuse(
                    suite,
                    "rows",
                    f"in column {column!r} of its rows, the name {why}",
                    "give every test item a plain name",
                )


def checked_score(suite: Suite[Any], found: Any) -> Score:
    """Return the suite's score if it is one.

    Raises:
        UserError: not a Score of Metrics and Checks; a metric comes twice; a field holds what it cannot, such as a direction
            that does not exist or a value outside its unit's range or its own interval. (An Estimate itself refuses NaN.)
    """
    if not isinstance(found, Score):
        _refuse(suite, "score", f"score returned {_word(found)}", "return Score(metrics, checks, notes)")
    for parts, wanted in ((found.metrics, Metric), (found.checks, Check), (found.notes, str)):
        for part in parts:
            if not isinstance(part, wanted):
                _refuse(
                    suite, "score", f"its score holds {_word(part)}", f"a {wanted.__name__} is expected in its place"
                )
    for name, count in Counter(metric.name for metric in found.metrics).items():
        if count > 1:
            _refuse(
                suite,
                "score",
                f"its score holds the metric {name!r} {count} times",
                "give every metric a name of its own",
            )
    names = {metric.name for metric in found.metrics}
    for metric in found.metrics:
        _check_metric(suite, metric, names)
    for check in found.checks:
        if why := wrong_field(check):
            _refuse(suite, "score", f"its check {check.name!r}: {why}", "correct that argument of Check")
    return found


def _check_metric(suite: Suite[Any], metric: Metric, names: set[str]) -> None:
    """Refuse a metric that no table could show, or whose number cannot be."""
    who, e = f"metric {metric.name!r}", metric.estimate
    if why := unfit_name(metric.name):
        _refuse(suite, "score", f"the name of a metric {why}", "give it a plain name")
    if not isinstance(e, Estimate):
        _refuse(suite, "score", f"{who} holds {_word(e)}", "an Estimate is expected")
    if why := wrong_field(metric) or wrong_field(e):
        _refuse(suite, "score", f"{who}: {why}", "correct that argument of Metric or of its Estimate")
    if metric.group and (why := unfit_name(metric.group)):
        _refuse(suite, "score", f"{who}: its group {why}", "give the group a plain name")
    if bool(metric.group) != (metric.group_size > 0):
        _refuse(
            suite,
            "score",
            f"{who}: group {metric.group!r} of size {metric.group_size}",
            "give a group and its size, or neither",
        )
    if lost := [name for name in metric.beside if name not in names]:
        _refuse(
            suite, "score", f"{who} is read beside {lost[0]!r}, which its score lacks", "name metrics of the same score"
        )
    if e.value is not None:
        _check_value(suite, metric, e.value)


def _check_value(suite: Suite[Any], metric: Metric, value: float) -> None:
    who, e, unit = f"metric {metric.name!r}", metric.estimate, _size(metric)
    if e.n < 1:
        _refuse(
            suite,
            "score",
            f"{who} is {value:g} of n = {e.n} items",
            "count the items, or return undefined(reason, ...)",
        )
    if e.low is not None and e.high is not None:
        slack = _ROUNDING * max(unit, abs(value))
        if not e.low - slack <= value <= e.high + slack:
            _refuse(
                suite,
                "score",
                f"{who} {value:g} is outside its interval [{e.low:g}, {e.high:g}]",
                "correct the Estimate",
            )
    if metric.unit not in _RANGES or any(fnmatchcase(metric.name, name) for name in suite.unbounded):
        return
    low, high = _RANGES[metric.unit]
    ends = [end for end in (e.low, e.high) if end is not None]
    if not low - _ROUNDING * unit <= value <= high + _ROUNDING * unit or any(
        not 2 * low - high <= end <= 2 * high - low for end in ends
    ):
        shown = f"{value:g}" + (f" [{e.low:g}, {e.high:g}]" if ends else "")
        _refuse(
            suite,
            "score",
            f"{who} is {shown}: a value of the unit {metric.unit!r} is in [{low:g}, {high:g}]",
            "give fractions (0.57, not 57) or another unit; a quotient that may leave the range is named in Suite.unbounded",
        )


def _size(metric: Metric) -> float:
    low, high = _RANGES.get(metric.unit, (0.0, 1.0))
    return high - low


def checked_units(suite: Suite[Any], found: Any, score: Score, wanted: Sequence[str]) -> tuple[Units, ...]:
    """Return the suite's per-item data if they are those of its score.

    Raises:
        UserError: not a tuple of Units; units of a metric that was not asked for, or twice; units that cannot be compared; or
            units whose value is not the metric's.
    """
    if not isinstance(found, (tuple, list)):
        _refuse(suite, "units", f"units returned {_word(found)}", "return a tuple of Units")
    metrics = {metric.name: metric for metric in score.metrics}
    for place, units in enumerate(found):
        if not isinstance(units, Units):
            _refuse(suite, "units", f"units returned {_word(units)} in its tuple", "return a tuple of Units")
        who = f"units of the metric {units.metric!r}"
        if units.metric not in wanted:
            _refuse(
                suite,
                "units",
                f"it returned {who}, asked for were {', '.join(wanted) or 'none'}",
                "return units of names only",
            )
        if units.metric in [each.metric for each in found[:place]]:
            _refuse(suite, "units", f"it returned {who} twice", "return units of every metric once")
        if why := unfit_units(units):
            _refuse(suite, "units", f"{who}: {why}", "correct them; flag_units makes those of a share")
        _check_agreement(suite, units, metrics[units.metric])
    return tuple(found)


def _check_agreement(suite: Suite[Any], units: Units, metric: Metric) -> None:
    """Refuse units that do not tell the metric's test items apart, or that give another value than the metric."""
    e, who = metric.estimate, f"units of the metric {metric.name!r}"
    if e.value is None:
        return
    if len(units.ids) < min(2, e.n):
        _refuse(
            suite,
            "units",
            f"{who} are {', '.join(map(repr, units.ids)) or 'none'}, the metric's n is {e.n}",
            "name every test item differently",
        )
    value = units.value()
    if not abs(value - e.value) <= _SAME_VALUE * max(_size(metric), abs(e.value)):
        _refuse(
            suite,
            "units",
            f"{who} give {value:g}, its score says {e.value:g}",
            "make both of the same rows; units are in the metric's unit (scale=100 for points)",
        )


def _is_kind(column: pd.Series, kind: ColumnKind) -> bool:
    from pandas.api import types

    if kind == "list":
        return bool(column.map(lambda value: hasattr(value, "__len__") and not isinstance(value, str)).all())
    if kind == "text":
        return bool(column.map(lambda value: isinstance(value, str)).all())
    test = {"integer": types.is_integer_dtype, "number": types.is_numeric_dtype, "flag": types.is_bool_dtype}[kind]
    if not test(column.dtype) or (kind == "number" and types.is_bool_dtype(column.dtype)):
        return False
    return kind == "number" or not column.isna().any()


def _hashable(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def _word(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]


def _plain(value: Any) -> Any:
    """Return a number of numpy's as Python's own, which prints without its type."""
    return value.item() if hasattr(value, "item") else value


def _kind(plugin: Generator[Any] | Suite[Any]) -> str:
    return "suite" if isinstance(plugin, Suite) else "generator"


def _refuse(suite: Suite[Any], hook: str, why: str, fix: str) -> NoReturn:
    code = getattr(getattr(type(suite), hook), "__code__", None)
    place = f" ({hook} at {code.co_filename}:{code.co_firstlineno})" if code else ""
    raise ContractBroken(f"suite {suite.card.id!r} breaks its contract", f"{why}{place}", fix)
