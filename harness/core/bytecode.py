"""What a function of Python refers to outside itself, read from its compiled code."""

from __future__ import annotations

import dis
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Owner = Literal["known", "installed", "own"]
KNOWN = ("torch", "torchvision", "numpy", "builtins")
"""Libraries whose code counts by its name, beside Python's own."""
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_INSTALLED_PARTS = {"site-packages", "dist-packages"}
_LOOKUPS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_CLASSDICT_OR_GLOBAL")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_SILENT = ("EXTENDED_ARG", "NOP", "CACHE")


@dataclass
class Reached:
    """Names that a function, and the functions within it, refer to.

    Attributes:
        chains: Looked up outside the function, each with the attributes taken of it at once: ``("torch", "nn", "ReLU")``.
        imports: Imports within: level, module, and the names taken of it (none: the module itself).
        rebound: Variables outside the function that it sets while it runs.
        names: All attributes, methods and global variables that it names.
    """

    chains: set[tuple[str, ...]] = field(default_factory=set)
    imports: set[tuple[int, str, tuple[str, ...]]] = field(default_factory=set)
    rebound: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def reached(code: types.CodeType) -> Reached:
    """Return what the code of a function refers to."""
    found = Reached()
    _collect(code, found, frozenset(code.co_freevars))
    return found


def _collect(code: types.CodeType, found: Reached, outer: frozenset[str]) -> None:
    found.names.update(code.co_names)
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
    for number, step in enumerate(steps):
        if step.opname in _LOOKUPS:
            chain = [step.argval]
            for after in steps[number + 1 :]:
                if after.opname not in _ATTRIBUTES:
                    break
                chain.append(after.argval)
            found.chains.add(tuple(chain))
        elif step.opname == "IMPORT_NAME":
            level, names = steps[number - 2].argval, steps[number - 1].argval
            found.imports.add((level if isinstance(level, int) else 0, step.argval, tuple(names or ())))
        elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in outer
        ):
            found.rebound.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _collect(constant, found, outer & frozenset(constant.co_freevars))


def facts(code: types.CodeType) -> Iterator[Any]:
    """Yield what makes compiled code do what it does: instructions, constants and names; no file and no line."""
    yield from (
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_exceptiontable,
    )
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    yield code.co_consts


def owner(namespace: Mapping[str, Any]) -> Owner:
    """Return whose code runs in the variables of a module: of ``KNOWN`` libraries, of other installed ones, or the user's own.

    A file of the user's that has the name of a module of Python is the user's own.
    """
    name, file = str(namespace.get("__name__") or ""), namespace.get("__file__")
    installed = file is not None and _installed(str(file))
    if _known(name) and (file is None or installed):
        return "known"
    return "installed" if installed else "own"


def owner_of_class(kind: type) -> Owner:
    """Return whose a class is."""
    module = sys.modules.get(kind.__module__)
    return owner({"__name__": kind.__module__} if module is None else vars(module))


def owner_of_module(name: str) -> Owner:
    """Return whose a module is."""
    module = sys.modules.get(name)
    return owner({"__name__": name} if module is None else vars(module))


def _known(module: str) -> bool:
    top = module.partition(".")[0]
    return top in KNOWN or (top in sys.stdlib_module_names and top != "__main__")


def _installed(file: str) -> bool:
    path = Path(file)
    return bool(_INSTALLED_PARTS & set(path.parts)) or any(path.is_relative_to(folder) for folder in _INSTALLED)


def has_hidden_state(kind: type) -> bool:
    """Return whether objects of a class hold more than attributes: memory that only code in C reads, such as that of a lock."""
    slots = sum(
        isinstance(value, types.MemberDescriptorType)
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for value in vars(base).values()
    )
    word = tuple.__itemsize__
    plain = object.__basicsize__ + word * (slots + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0))
    return bool(kind.__itemsize__) or kind.__basicsize__ > plain
