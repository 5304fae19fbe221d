"""The registry: typed, lazy, filled from entry points. Built-ins and plugins come through the same door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

from harness.core.errors import UserError
from harness.core.fields import wrong_field
from harness.core.names import did_you_mean, is_pattern, matches
from harness.plugins.common import DataReport
from harness.plugins.generator import Generator, GeneratorCard
from harness.plugins.suite import Suite, SuiteCard

T = TypeVar("T", Generator, Suite)
DISTRIBUTION = "databias-harness"
"""The project's own distribution: its plugins are the built-in ones, whose names nobody else can take."""


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, with the reason."""

    id: str
    origin: str
    reason: str


class Registry(Generic[T]):
    """All plugins of one kind."""

    def __init__(self, kind: str, group: str, base: type[T], points: Sequence[EntryPoint] | None = None) -> None:
        self.kind, self.group = kind, group
        self.base: type[Generator | Suite] = base
        self._points: dict[str, EntryPoint] = {}
        self._clashes: dict[str, str] = {}
        self._shadowed: list[Broken] = []
        self._loaded: dict[str, T] = {}
        found = points if points is not None else entry_points(group=group)
        for point in sorted(found, key=lambda p: (not _built_in(p), p.name, p.value)):
            earlier = self._points.setdefault(point.name, point)
            if earlier.value == point.value:
                continue
            if _built_in(earlier):
                reason = f"the built-in {kind} {point.name!r} has this name"
                self._shadowed.append(Broken(point.name, _origin(point), reason))
            else:
                self._clashes[point.name] = f"both {_origin(earlier)} and {_origin(point)} register this name"
        self._points = dict(sorted(self._points.items()))

    def ids(self) -> tuple[str, ...]:
        """Return all registered names in order."""
        return tuple(self._points)

    def origin(self, name: str) -> str:
        """Return ``module:attribute`` and the distribution a name comes from."""
        return _origin(self._points[name])

    def get(self, name: str) -> T:
        """Load one plugin.

        Raises:
            UserError: unknown name, or the plugin is broken.
        """
        if name in self._loaded:
            return self._loaded[name]
        if ":" in name and name.partition(":")[0] in self._points:
            return self._bound(name)
        if name not in self._points:
            loaded = f"{len(self._points)} {self.kind}s are registered"
            empty = "" if self._points else "; is the project installed? (pip install -e .)"
            raise UserError(
                f"unknown {self.kind} {name!r}",
                f"no built-in or plugin has that name; {loaded}{empty}",
                f"{did_you_mean(name, (*self._points, *self.groups()))}all names: python -m harness list {self.kind}s",
            )
        reason = self._clashes.get(name) or self._load(name)
        if reason:
            raise UserError(
                f"{self.kind} {name!r} is broken",
                f"{reason} ({self.origin(name)})",
                "fix or uninstall the plugin; python -m harness list shows all that load",
            )
        return self._loaded[name]

    def _bound(self, name: str) -> T:
        """Bind ``id:argument`` and remember it under the short name that its card bears."""
        base, _, argument = name.partition(":")
        plugin = self.get(base)
        if not isinstance(plugin, Generator):
            raise UserError(f"{self.kind} {base!r} takes no argument", f"{argument!r} was given", f"write {base}")
        made = plugin.bind(argument)
        known = self._loaded.get(made.card.id)
        if isinstance(known, Generator) and known.bound_data != made.bound_data:
            raise UserError(
                f"two {self.kind}s are called {made.card.id!r}",
                f"{', '.join(known.bound_data.values())} and {', '.join(made.bound_data.values())}",
                f"name one of them yourself: {base}:NAME=PATH",
            )
        self._loaded[made.card.id] = made
        return made

    def available(self) -> tuple[list[T], list[Broken]]:
        """Load everything; a broken plugin is listed with its reason and harms no other."""
        good: list[T] = []
        bad: list[Broken] = []
        for name in self._points:
            reason = self._clashes.get(name) or ("" if name in self._loaded else self._load(name))
            if reason:
                bad.append(Broken(name, self.origin(name), reason))
            else:
                good.append(self._loaded[name])
        return good, bad + self._shadowed

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Return group name to member ids; ``all`` holds every default entry."""
        found: dict[str, list[str]] = {"all": []}
        for plugin in self.available()[0]:
            if plugin.card.default:
                found["all"].append(plugin.card.id)
            for group in plugin.card.groups:
                found.setdefault(group, []).append(plugin.card.id)
        return {name: tuple(members) for name, members in found.items()}

    def expand(self, text: str) -> tuple[tuple[str, ...], frozenset[str]]:
        """Expand a comma list of ids, groups and wildcard patterns.

        Returns:
            The concrete ids in order without repeats, and those that were asked for by name.
        """
        ids: dict[str, None] = {}
        named = set()
        groups = self.groups()
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            if part in groups:
                ids.update(dict.fromkeys(groups[part]))
                named.update({part} & self._points.keys())  # a group may be called as one of its members
            elif is_pattern(part):
                ids.update(dict.fromkeys(matches(part, self._selectable(), self.kind)))
            else:
                concrete = self.get(part).card.id
                ids[concrete] = None
                named.add(concrete)
        return tuple(ids), frozenset(named)

    def _selectable(self) -> list[str]:
        """Return the ids that a pattern can match: those that load and need no argument."""
        return [plugin.card.id for plugin in self.available()[0] if not getattr(plugin, "takes_argument", False)]

    def _load(self, name: str) -> str:
        try:
            made = self._points[name].load()
            plugin = made() if isinstance(made, type) else made
        except Exception as error:  # a plugin may fail in any way; the reason is shown, never swallowed
            return f"{type(error).__name__}: {error}"
        if not isinstance(plugin, self.base):
            return f"{type(plugin).__name__} is not a {self.base.__name__}"
        card = getattr(plugin, "card", None)
        if not isinstance(card, (GeneratorCard, SuiteCard)):
            return f"its card is {type(card).__name__}, not a {self.base.__name__}Card"
        if why := wrong_field(card):
            return f"its card: {why}"
        if plugin.card.id != name:
            return f"its card says {plugin.card.id!r}"
        self._loaded[name] = cast(T, plugin)
        return ""


def _built_in(point: EntryPoint) -> bool:
    return point.dist is not None and _name(point.dist) == DISTRIBUTION


def _origin(point: EntryPoint) -> str:
    return f"{point.value} ({_name(point.dist) if point.dist else 'no distribution'})"


@cache
def _name(distribution: Distribution) -> str:
    """Return the name of a distribution, for which its whole metadata is parsed."""
    return str(distribution.name)


@cache
def generators() -> Registry[Generator]:
    """Return the registry of generators."""
    return Registry("generator", "harness.generators", Generator)  # type: ignore[type-abstract]


@cache
def suites() -> Registry[Suite]:
    """Return the registry of suites."""
    return Registry("suite", "harness.suites", Suite)  # type: ignore[type-abstract]


Inspector = Callable[[str, Path, object], DataReport]
"""Called with (name, root, card)."""


def first_known(table: Literal["data_inspectors", "origins"]) -> dict[str, str]:
    """Return data set name to what the first suite that knows it says in one of its tables."""
    found: dict[str, str] = {}
    for suite in suites().available()[0]:
        for name, entry in getattr(suite, table).items():
            found.setdefault(name, entry)
    return found


def find_generator(name: str) -> Generator:
    """Return the generator of a name; of ``folder:PATH`` and the like the one that is bound to the argument.

    Raises:
        UserError: there is none, or it is broken.
    """
    return generators().get(name)


def find_plugin(name: str, others: Sequence[str] = ()) -> Generator | Suite:
    """Return the generator or suite of a name; of ``folder:PATH`` and the like the generator that takes the argument.

    Args:
        name: The name as it was typed.
        others: Further names that would have been accepted; for the hint only.

    Raises:
        UserError: there is none.
    """
    family, colon, _ = name.partition(":")
    if family in generators().ids() and (not colon or generators().get(family).takes_argument):
        return generators().get(family)
    if name in suites().ids():
        return suites().get(name)
    known = (*generators().ids(), *suites().ids(), *generators().groups())
    raise UserError(
        f"unknown name {name!r}",
        "no generator, suite, group, metric or profile has that name",
        f"{did_you_mean(name, (*known, *others))}all names: python -m harness list",
    )
