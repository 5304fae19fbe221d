"""The definitions that some code reaches, and their hash."""

from __future__ import annotations

import hashlib
import importlib
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from harness.core.resources import package_places
from harness.core.syntax import ON_IMPORT, Table, read_table

NO_PART = frozenset(
    f"harness.{name}"
    for name in (
        *(
            "core.errors",
            "core.names",
            "core.install",
            "core.provenance",
            "core.cost",
        ),  # words, facts beside the result
        *(
            "core.files",
            "core.disk",
            "core.intact",
            "core.locks",
            "core.seals",
            "core.fingerprints",
            "core.hashcache",
            "store.artifacts",
        ),  # bytes as they are, written and checked
        *(
            "core.settings",
            "core.classes",
            "core.resources",
            "store.cells",
            "store.data",
        ),  # their values are in the key
        *("core.code", "plugins.registry", "plugins.common"),  # look-ups by name
    )
)
"""Modules that are not followed: nothing in them can change a result without a change of the key."""


def closure_hash(roots: Sequence[str], tops: Sequence[str]) -> str:
    """Return the hash of the definitions that are reached from ``roots`` within the packages ``tops``."""
    return hashlib.sha256("\n".join(sorted(Closure(roots, tops).found)).encode()).hexdigest()


class Closure:
    """What is reached from some roots.

    Attributes:
        found: Name (without its module) and hash of each definition, and the names that are used of other packages.
        modules: Names of the modules they are in.
    """

    def __init__(self, roots: Sequence[str], tops: Sequence[str]) -> None:
        self.tops = frozenset(tops)
        self.found: set[str] = set()
        self.modules: set[str] = set()
        self._seen: set[tuple[str, str, str]] = set()
        self._pending = [(f"@{root}" if "." in root.partition(":")[2] else root, "") for root in roots]
        while self._pending:
            self._follow(*self._pending.pop())

    def _follow(self, reference: str, instance: str) -> None:
        """Add what a reference names; ``instance`` is ``module:Class`` of the object whose method refers to it."""
        if reference.startswith("self."):
            if instance:
                self._of_instance(instance, reference.removeprefix("self."), instance)
        elif reference.startswith("super:"):
            owner, _, member = reference.removeprefix("super:").rpartition(".")
            for base in self._bases(owner):
                self._of_instance(base, member, instance or owner)
        elif reference.startswith("@"):
            owner, _, member = reference[1:].rpartition(".")
            found = self._resolved(owner)
            if self._is_class(found):
                self._of_instance(found, member, found)
        elif reference.endswith(".*"):
            for module in _submodules(reference[:-2]):
                self._module(module)
        else:
            self._named(self._resolved(reference))

    def _named(self, location: str) -> None:
        """Add a definition where it is: of a class all of it, unless one constant of it is meant; or a whole module."""
        module, _, name = location.partition(":")
        head, _, rest = name.partition(".")
        owner, member = f"{module}:{head}", rest.partition(".")[0]
        if module and not name:
            self._module(module)
        elif self._is_class(owner):
            found = self._member(owner, member)
            if found and _table(found[0]).definitions[found[1]].kind == "value":
                self._add(*found, owner)
            else:
                self._class(owner)
        elif name:
            self._add(module, head, "")

    def _module(self, module: str) -> None:
        for name, definition in _table(module).definitions.items():
            if definition.kind == "class":
                self._class(f"{module}:{name}")
            elif "." not in name:
                self._add(module, name, "")

    def _class(self, owner: str) -> None:
        """Add a class with all its members and those of its bases."""
        module, _, name = owner.partition(":")
        if (module, name, owner) in self._seen:
            return
        self._add(module, name, owner)
        for member in _table(module).members(name):
            self._add(module, member, owner)
        for base in self._bases(owner):
            self._class(base)

    def _of_instance(self, owner: str, member: str, instance: str) -> None:
        if member == "*":
            self._class(owner)
        elif (found := self._member(owner, member)) is not None:
            self._add(*found, instance)

    def _add(self, module: str, name: str, instance: str) -> None:
        if module in NO_PART or (module, name, instance) in self._seen:
            return
        self._seen.add((module, name, instance))
        self.modules.add(module)
        definition = _table(module).definitions[name]
        self.found.add(f"{name} {definition.digest}")
        self._pending += [(each, instance) for each in definition.references]
        if name != ON_IMPORT:
            self._add(module, ON_IMPORT, "")

    def _is_class(self, location: str) -> bool:
        module, _, name = location.partition(":")
        definitions = _table(module).definitions if module else {}
        return name in definitions and definitions[name].kind == "class"

    def _bases(self, owner: str) -> Iterator[str]:
        module, _, name = owner.partition(":")
        for base in _table(module).definitions[name].bases:
            found = self._resolved(base)
            if self._is_class(found):
                yield found

    def _member(self, owner: str, member: str) -> tuple[str, str] | None:
        """Return module and name of a member of a class or of its nearest base that has it."""
        module, _, name = owner.partition(":")
        if member and f"{name}.{member}" in _table(module).definitions:
            return module, f"{name}.{member}"
        return next((found for base in self._bases(owner) if (found := self._member(base, member))), None)

    def _resolved(self, reference: str) -> str:
        """Return where a name is defined, or ``module:`` of a whole module; empty for what is not followed.

        A name of another package is added as it is: a function of another name is other code.
        """
        module, _, name = reference.partition(":")
        for _ in range(20):  # from one module's import to the next
            if module.partition(".")[0] not in self.tops:
                self.found.add(f"external {module}:{name}")
                return ""
            if module in NO_PART or not _table(module).definitions:
                return ""
            head, _, rest = name.partition(".")
            if not name or head in _table(module).definitions:
                return f"{module}:{name}"
            if target := _target(module, head):
                module, _, start = target.partition(":")
                name = ".".join(filter(None, (start, rest)))
            elif _table(f"{module}.{head}").definitions:
                module, name = f"{module}.{head}", rest
            else:
                return f"{module}:"
        return ""


def _target(module: str, name: str) -> str:
    """Return ``module:name`` from where a module imports a name, at once or in its ``__getattr__``; empty if nowhere."""
    table = _table(module)
    if name in table.imports:
        return table.imports[name]
    if "__getattr__" in table.definitions:
        try:
            made = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            return ""
        return f"{made.__module__}:{made.__name__}" if hasattr(made, "__name__") else ""
    return next((f"{star}:{name}" for star in table.stars if name in _table(star).definitions), "")


def _submodules(package: str) -> Iterator[str]:
    for folder in _candidates(package):
        yield from (f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.name != "__init__.py")


def _candidates(module: str) -> Iterator[Path]:
    """Yield where a module or package may lie, without a suffix."""
    top, *parts = module.split(".")
    for place in package_places(top):
        yield place.with_suffix("") if place.is_file() else place.joinpath(*parts)


@cache
def _table(module: str) -> Table:
    """Return the definitions of a module; none where it has no source."""
    for place in _candidates(module):
        for path, is_package in ((place / "__init__.py", True), (place.with_suffix(".py"), False)):
            if path.is_file():
                return read_table(read_source(path), module, is_package)
    return Table()


def read_source(path: Path) -> str:
    """Return the text of a source file, in the encoding that it declares."""
    with tokenize.open(path) as stream:
        return stream.read()
