"""What a function of Python refers to outside itself, read from its compiled code."""

from __future__ import annotations

import dis
import importlib
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
OF_A_CLASS = ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__abstractmethods__",
               "__parameters__", "__orig_bases__", "__slots__", "__match_args__", "__dataclass_fields__", "__dataclass_params__",
               "__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__", "__annotations_cache__",
               "_abc_impl")  # fmt: skip
"""What Python notes in a class: no part of what its objects do."""
OF_A_MODULE = ("__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__path__",
                "__spec__", "__annotations__", "__annotate__")  # fmt: skip
MAKERS = ("__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "__class_getitem__")
"""Methods that have run once an object is there; what they did is in the object."""
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


def slot_values(base: type, value: Any) -> dict[str, Any]:
    """Return the fields of ``__slots__`` that have a value."""
    found = {}
    for name, slot in vars(base).items():
        if isinstance(slot, types.MemberDescriptorType):
            try:
                found[f"{base.__qualname__}.{name}"] = slot.__get__(value)
            except AttributeError:
                continue
    return found


def import_submodule(package: types.ModuleType, name: str) -> bool:
    """Import a module of a package; returns whether there is one of that name."""
    try:
        importlib.import_module(f"{package.__name__}.{name}")
    except ImportError:
        return False
    return hasattr(package, name)


def package_version(module: str) -> str:
    """Return the version of the package of a module; empty where it states none."""
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))
