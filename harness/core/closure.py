"""The definitions that some code reaches, and their hash."""

from __future__ import annotations

import hashlib
import importlib
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePath

from harness.core.resources import data_of, package_places
from harness.core.syntax import ON_IMPORT, Table, read_table

NO_PART: dict[str, str] = {
    "core.errors": "words, and how a run ends",
    "core.names": "hints, and which plugins a pattern stands for: they are named in the key",
    "core.install": "a warning",
    "core.provenance": "facts noted beside a result",
    "core.cost": "time and memory noted beside a result",
    "core.fingerprints": "hashes of data, which are in the key",
    "core.hashcache": "hashes of files, which are in the key or checked",
    "core.settings": "settings as they were read are in the key; the classes that read them are the plugin's, and are followed",
    "core.code": "attributes by name: settings that name them are in the key, and what they name is followed",
    "core.resources": "where files are; the content of those that are named is in the key, or is followed",
    "core.files:atomic_path": "how bytes reach the disk",
    "core.files:atomic_file": "how bytes reach the disk",
    "core.files:explain_full_disk": "words",
    "core.files:remove_tree": "removes what is not needed",
    "core.files:sync_folder": "how bytes reach the disk",
    "core.files:write_together": "how bytes reach the disk",
    "core.files:read_text": "a text as it is, or an error",
    "core.disk": "words, and messages that may be lost",
    "core.hub": "which files are fetched before a run; what is read is in the key by its commit",
    "core.intact": "refuses a damaged file",
    "core.locks": "who works, not on what",
    "core.seals": "whether a manifest is as it was written",
    "core.classes:SHIPPED": "files of class lists, whose content is in the key",
    "core.classes:load_classes": "ids and names are in the key",
    "core.classes:load_folder_classes": "ids and names are in the key",
    "store.artifacts:Store": "where artifacts are",
    "store.artifacts:read_manifest": "facts about files, which are checked against their bytes",
    "store.cells": "cells are their keys",
    "store.data": "data sets are in the key by their content and card",
    "plugins.registry": "plugins by name, which is in the key; their code is followed",
    "core.fields": "refuses what a plugin returns, or passes it on as it is",
    "plugins.generator:Generator.hub_models": "as core.hub",
    "plugins.border": "refuses what a plugin returns, or passes it on as it is",
    "plugins.common": "what a plan is told: it is in the key, or is a figure for the display",
}
"""Modules and definitions of ``harness`` that are not followed, each with why no change in it can change a result whose key stays."""


def closure_hash(roots: Sequence[str], tops: Sequence[str]) -> str:
    """Return the hash of the definitions that are reached from ``roots`` within the packages ``tops``."""
    return hashlib.sha256("\n".join(sorted(Closure(roots, tops).found)).encode()).hexdigest()


class Closure:
    """What is reached from some roots.

    Attributes:
        found: Name (without its module) and hash of each definition and of each data file that one names, and the names that are
            used of other packages.
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
        elif reference.startswith("file:"):
            module, _, name = reference.removeprefix("file:").partition(":")
            self.found.update(f"file {path.name} {file_hash(path)}" for path in data_files(module, name))
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
        if _no_part(module, name) or (module, name, instance) in self._seen:
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
            head, _, rest = name.partition(".")
            if _no_part(module, head) or not _table(module).definitions:
                return ""
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


def _no_part(module: str, name: str) -> bool:
    room, inside, rest = module.partition("harness.")
    names = (rest, f"{rest}:{name.partition('.')[0]}", f"{rest}:{name}")
    return bool(inside and not room) and any(each in NO_PART for each in names)


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


def data_files(module: str, name: str) -> Iterator[Path]:
    """Yield the files of a package, below the folder of one of its modules, that a text in this module names.

    Args:
        module: The module.
        name: The last parts of the file's path, or ``package:PKG/PATH``.
    """
    if name.startswith("package:"):
        package, _, inside = name.removeprefix("package:").partition("/")
        yield from (path for place in _candidates(package) if (path := place / inside).is_file())
    else:
        wanted = PurePath(name).parts
        yield from (path for path in _files_beside(module) if path.parts[-len(wanted) :] == wanted)


@cache
def _files_beside(module: str) -> tuple[Path, ...]:
    """Return the files below the folder of a module of a package that are no source."""
    if any(place.is_file() for place in package_places(module.partition(".")[0])):
        return ()  # of a module that is no package nobody knows which files belong to it
    folders = {place if place.is_dir() else place.parent for place in _candidates(module)}
    return tuple(path for folder in sorted(folders) for path in data_of(folder))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a data file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_source(path: Path) -> str:
    """Return the text of a source file, in the encoding that it declares."""
    with tokenize.open(path) as stream:
        return stream.read()
