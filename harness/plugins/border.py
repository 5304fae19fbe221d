"""Where a plugin's results enter the harness: what it returns is checked, and its exceptions are reported as its own."""

from __future__ import annotations

import errno
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from harness.core.errors import UserError
from harness.plugins.generator import Generator
from harness.plugins.suite import ColumnKind, Item, NotPlanned, Score, Suite
from harness.stats.estimate import Estimate
from harness.store.records import Check, Metric

if TYPE_CHECKING:
    import pandas as pd

    from harness.core.settings import Settings
    from harness.images.request import Request
    from harness.plugins.context import Context

BUILT_IN = ("harness", "generators", "suites")
"""Top-level packages of the project itself."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class PluginFailed(UserError):
    """Report an exception that was raised by a plugin's code (exit code 1)."""

    code = 1


@contextmanager
def plugin_errors(plugin: Generator[Any] | Suite[Any]) -> Iterator[None]:
    """Report any exception raised in the block as the plugin's.

    Raises:
        PluginFailed: anything but a ``UserError`` or a full disk, which pass; it names plugin, exception, file and line.
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
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
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
        UserError: something is no Item, or two items are the same evaluation.
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
            _refuse(suite, f"items returned {_word(item)}", "return Item objects")
    counts = Counter((item.label, item.probe_seed) for item in items)
    (label, seed), count = counts.most_common(1)[0] if counts else (("", 0), 0)
    if count > 1:
        _refuse(
            suite,
            f"items returned {count} items with the label {label!r} and probe seed {seed}",
            "give every evaluation a label of its own; repetitions differ in probe_seed",
        )
    return items


def checked_rows(suite: Suite[Any], rows: Any) -> pd.DataFrame:
    """Return the suite's rows if they are what ``Suite.rows`` promises.

    Raises:
        UserError: not a DataFrame; a declared column is missing or of another kind; a row comes twice. It names suite and column.
    """
    import pandas as pd

    if not isinstance(rows, pd.DataFrame):
        _refuse(suite, f"rows returned {_word(rows)}", "return a pandas DataFrame with one row per test item")
    odd = [name for name, n in Counter(rows.columns).items() if n > 1 or not isinstance(name, str)]
    if odd:
        _refuse(suite, f"column {odd[0]!r} of its rows comes twice or is not a string", "name every column once")
    for name, kind in suite.columns.items():
        if name not in rows:
            have = ", ".join(map(str, rows.columns))
            _refuse(suite, f"its rows have no column {name!r} (they have {have})", f"add it, as {kind}")
        if not _is_kind(rows[name], kind):
            _refuse(
                suite, f"column {name!r} of its rows is {rows[name].dtype}", f"make it {kind}, without missing values"
            )
    key = list(suite.row_key or rows.columns)
    lost = [name for name in key if name not in rows]
    if lost:
        _refuse(suite, f"its rows have no column {lost[0]!r}", "row_key names columns of the rows")
    again = rows.duplicated(key) if suite.row_key else rows.map(_hashable).duplicated()
    if len(rows) and again.any():
        shown = ", ".join(f"{name}={rows[name][again].iloc[0]!r}" for name in key[:3])
        _refuse(
            suite,
            f"{int(again.sum())} of {len(rows)} rows repeat another, such as {shown}",
            f"return one row per test item; {', '.join(key[:3])} must tell rows apart",
        )
    return rows


def checked_score(suite: Suite[Any], found: Any) -> Score:
    """Return the suite's score if it is one.

    Raises:
        UserError: not a Score of Metrics and Checks; or a metric comes twice. (An Estimate itself refuses NaN.)
    """
    if not isinstance(found, Score):
        _refuse(suite, f"score returned {_word(found)}", "return Score(metrics, checks, notes)")
    for parts, wanted in ((found.metrics, Metric), (found.checks, Check), (found.notes, str)):
        for part in parts:
            if not isinstance(part, wanted):
                _refuse(suite, f"its score holds {_word(part)}", f"a {wanted.__name__} is expected in its place")
    for name, count in Counter(metric.name for metric in found.metrics).items():
        if count > 1:
            _refuse(suite, f"its score holds the metric {name!r} {count} times", "give every metric a name of its own")
    for metric in found.metrics:
        if not isinstance(metric.estimate, Estimate):
            _refuse(suite, f"metric {metric.name!r} holds {_word(metric.estimate)}", "an Estimate is expected")
    return found


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


def _kind(plugin: Generator[Any] | Suite[Any]) -> str:
    return "suite" if isinstance(plugin, Suite) else "generator"


def _refuse(plugin: Generator[Any] | Suite[Any], why: str, fix: str) -> NoReturn:
    raise UserError(f"{_kind(plugin)} {plugin.card.id!r} breaks its contract", why, fix)
