"""What a model of this process is identified by: a hash over its weights and the code that turns images into logits.

The hash follows what the model can reach: tensors, submodules, attributes, and the variables that its functions take from outside
themselves. Where something cannot be read (an extension in C, an open file, a lock) there is no honest hash, and the caller names
the model instead. Code of installed packages counts by its source, that of torch, numpy and Python itself by its name. Devices,
gradients and ``training`` do not count: a model is always measured in evaluation mode.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import logging
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), PurePath)
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType)
_BY_NAME = ("torch", "torchvision", "numpy", "builtins")
_STATE = ("_parameters", "_buffers", "_modules")
_NO_MATTER = ("training", "pretrained_cfg", "default_cfg", "_non_persistent_buffers_set", "_is_full_backward_hook")
"""Attributes of a module that do not enter its outputs in evaluation mode."""
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
"""Endings of attributes that hold hooks by a number, which tells nothing but how many there were before in this process."""
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class NotHashable(Exception):
    """Say what of a model cannot be read."""


class InTraining(Exception):
    """Say that a function uses a module in training mode."""


def model_hash(model: Callable[..., Any], *, evaluating: bool = False) -> str:
    """Return the SHA-256, 64 hex digits, of a model's weights and code.

    Args:
        model: A module, a function, a bound method, a ``functools.partial`` or any other callable object.
        evaluating: Whether every module it reaches must be in evaluation mode already.

    Raises:
        NotHashable: something in it cannot be read.
        InTraining: a module is in training mode, where batch norm and dropout let an answer depend on its neighbours and on chance.
    """
    try:
        return _Hasher(evaluating).hash(model)
    except RecursionError as error:
        raise NotHashable("it reaches objects nested too deeply") from error


class _Hasher:
    def __init__(self, evaluating: bool = False) -> None:
        self._evaluating = evaluating
        self._digest = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []

    def hash(self, value: Any) -> str:
        """Return the hash of one value."""
        self._add(value)
        return self._digest.hexdigest()

    def _say(self, *words: object) -> None:
        for word in words:
            content = word if isinstance(word, bytes) else str(word).encode()
            self._digest.update(f"{len(content)}:".encode() + content)

    def _add(self, value: Any) -> None:
        """Add a value with all that it reaches; of one that was met before only which it is."""
        if isinstance(value, _PLAIN):
            self._say(type(value).__name__, repr(value))
        elif id(value) in self._seen:
            self._say("again", self._seen[id(value)])
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)  # so that no other object gets its id
            self._add_new(value)

    def _add_new(self, value: Any) -> None:
        if isinstance(value, Mapping):
            self._say("mapping", len(value))
            for key in value:
                self._add(key)
                self._add(value[key])
        elif isinstance(value, list | tuple):
            self._say(type(value).__name__, len(value))
            for item in value:
                self._add(item)
        elif isinstance(value, set | frozenset):
            self._say("set", *sorted(_Hasher(self._evaluating).hash(item) for item in value))
        elif isinstance(value, types.ModuleType):
            self._say("module file", value.__name__, _own_bytes(getattr(value, "__file__", None)))
        elif isinstance(value, logging.Logger):
            self._say("logger")
        elif isinstance(value, re.Pattern):
            self._say("pattern", value.pattern, value.flags)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._add_data(value)

    def _add_data(self, value: Any) -> None:
        import numpy as np
        import torch

        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            self._say("array", value.dtype.str, value.shape, value.tobytes())
        elif isinstance(value, torch.dtype | torch.layout | torch.memory_format | np.dtype):
            self._say(repr(value))
        elif isinstance(value, torch.device):
            self._say("device")
        elif isinstance(value, torch.nn.Module):
            self._module(value)
        else:
            self._add_code(value)

    def _add_code(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            self._say("partial")
            self._add([value.func, list(value.args), value.keywords])
        elif isinstance(value, types.MethodType):
            self._say("method")
            self._add([value.__self__, value.__func__])
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, _BUILTIN) or (_by_name(type(value).__module__) and hasattr(value, "__qualname__")):
            self._builtin(value)
        else:
            self._instance(value)

    def _tensor(self, tensor: Any) -> None:
        import torch

        try:
            held = tensor.detach().cpu().contiguous().reshape(-1)
            content = held.view(torch.uint8).numpy().tobytes() if held.numel() else b""
        except (RuntimeError, TypeError) as error:
            raise NotHashable(f"a tensor of {tensor.dtype} ({error})") from error
        self._say("tensor", tensor.dtype, tuple(tensor.shape), content)

    def _module(self, module: Any) -> None:
        if self._evaluating and module.training:
            raise InTraining(type(module).__qualname__)
        self._say("module")
        self._class(type(module))
        for group in _STATE:  # in their own order, which is that in which a Sequential calls its parts
            self._add({name: value for name, value in vars(module)[group].items() if value is not None})
        for name, value in sorted(vars(module).items()):
            if name not in (*_STATE, *_NO_MATTER):
                self._say(name)
                self._add(list(value.values()) if name.endswith(_HOOKS) and isinstance(value, Mapping) else value)

    def _attributes(self, values: Mapping[str, Any]) -> None:
        self._say("attributes", len(values))
        for name in sorted(values):
            self._say(name)
            self._add(values[name])

    def _instance(self, value: Any) -> None:
        slots = {name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)}
        if not hasattr(value, "__dict__") and not slots:
            raise NotHashable(f"an object of type {type(value).__module__}.{type(value).__qualname__}")
        self._say("object")
        self._class(type(value))
        self._attributes({name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {}))

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            self._say("class", base.__module__, base.__qualname__)
            if _by_name(base.__module__):
                continue
            functions = list(_functions(base))
            source = _source(base)
            if source is None and not functions:
                raise NotHashable(f"the class {base.__module__}.{base.__qualname__}, whose source is not available")
            self._say("source", source or "")
            for function in functions:  # of a class of a notebook only the functions can be read
                self._say(function.__qualname__, _text(function))
                self._variables(function)

    def _function(self, function: types.FunctionType) -> None:
        self._say("function", function.__module__, function.__qualname__)
        if hasattr(function, "__wrapped__"):
            self._add(function.__wrapped__)
        if not _by_name(function.__module__ or ""):
            self._say(_text(function))
            self._add([function.__defaults__, function.__kwdefaults__])
            self._variables(function)

    def _variables(self, function: types.FunctionType) -> None:
        """Add what a function of the user's own takes from its module and from the functions around it."""
        if not _own(function.__code__.co_filename):
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                self._say("variable", name)
                self._add(cell.cell_contents)
        for name in sorted(set(_global_names(function.__code__)) & function.__globals__.keys()):
            self._say("variable", name)
            self._add(function.__globals__[name])

    def _builtin(self, value: Any) -> None:
        owner, name = getattr(value, "__self__", None), value.__qualname__
        module = getattr(value, "__module__", None) or getattr(owner, "__module__", None) or ""
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self._add(owner)
        elif not _by_name(module or type(value).__module__):
            raise NotHashable(f"the function {name}, which is not written in Python")
        self._say("builtin", module, name)


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _functions(kind: type) -> Iterator[types.FunctionType]:
    """Yield the functions that a class itself defines, by name, without their decorators."""
    for _, value in sorted(vars(kind).items()):
        found = next((held for part in ("fget", "func", "__func__") if (held := getattr(value, part, None))), value)
        found = inspect.unwrap(found) if callable(found) else found
        if isinstance(found, types.FunctionType):
            yield found


def _global_names(code: types.CodeType) -> Iterator[str]:
    """Yield the names that a function and those within it look up outside themselves."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _text(function: types.FunctionType) -> str:
    """Return a function's source; of a lambda, which shares its line with others, or of generated code, its instructions."""
    source = None if function.__name__ == "<lambda>" else _source(function)
    return source if source is not None else _instructions(function.__code__)


def _instructions(code: types.CodeType) -> str:
    lines = [f"{step.opname} {_instructions(step.argval) if isinstance(step.argval, types.CodeType) else _constant(step.argval)}"
             for step in dis.get_instructions(code)]  # fmt: skip
    return "\n".join(lines)


def _constant(value: Any) -> str:
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _source(thing: Any) -> str | None:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return None


def _by_name(module: str) -> bool:
    top = module.partition(".")[0]
    return top in _BY_NAME or (top in sys.stdlib_module_names and top != "__main__")


def _own(file: str | None) -> bool:
    """Return whether code is the user's (a script, a notebook cell, a package that is developed here) and not an installed one."""
    return file is not None and not any(Path(file).is_relative_to(folder) for folder in _INSTALLED)


def _own_bytes(file: str | None) -> bytes:
    return Path(file).read_bytes() if file and _own(file) and Path(file).is_file() else b""
