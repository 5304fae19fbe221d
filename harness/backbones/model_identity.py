"""What a model of this process is identified by: a hash over its weights and the code that turns images into logits.

The hash follows what the model can reach: tensors, submodules, attributes of objects, classes and functions, variables of the
functions around a function, and of the modules of the user's own code those that it uses, however many files away. Code counts as
it was compiled. Installed packages count by name, version and the code of what is reached at once; torch, torchvision, numpy and
Python itself by name. Where something cannot be read (an extension in C, a lock) or says nothing of what comes later (a file, the
clock, chance, ``globals()``) there is no honest hash, and the caller names the model instead. Devices, gradients and ``training``
do not count: a model is always measured in evaluation mode.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import hashlib
import importlib
import importlib.util
import logging
import re
import sys
import types
import weakref
from collections.abc import Callable, Mapping
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from typing import Any, cast

from harness.core.bytecode import (
    MAKERS,
    OF_A_CLASS,
    OF_A_MODULE,
    facts,
    has_hidden_state,
    import_submodule,
    owner,
    owner_of_class,
    owner_of_module,
    package_version,
    reached,
    slot_values,
)
from harness.core.elsewhere import NotHashable, refuse_elsewhere, refuse_hooks_of_all_modules, refuse_names

__all__ = ("InTraining", "NotHashable", "model_hash")

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), type(NotImplemented), PosixPath, 
          PurePosixPath, PureWindowsPath)  # fmt: skip
_CONTAINERS: tuple[Any, ...] = (dict, list, tuple, set, frozenset, str, bytes, int, float, complex)
"""Types whose subclasses count by content, class and attributes."""
_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType)
_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_FIELDS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_STATE = ("_parameters", "_buffers", "_modules")
_NO_MATTER = ("training", "pretrained_cfg", "default_cfg", "_non_persistent_buffers_set", "_is_full_backward_hook",
              "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
              "_backward_hooks", "_backward_pre_hooks")  # fmt: skip
"""Attributes of a module that do not enter its outputs in evaluation mode."""
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
"""Endings of attributes that hold hooks by a number, which tells nothing but how many there were before in this process."""
_OPERATORS = ("aten", "prim", "prims", "torchvision", "quantized", "torch", "higher_order")


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
    except (NotHashable, InTraining):
        raise
    except RecursionError as error:
        raise NotHashable("objects nested too deeply") from error
    except Exception as error:  # attributes of objects are code of others, which may fail in any way
        raise NotHashable(f"something that fails when it is read ({type(error).__name__}: {error})") from error


class _Hasher:
    def __init__(self, evaluating: bool = False) -> None:
        self._evaluating = evaluating
        self._digest = hashlib.sha256()
        self._seen: dict[object, int] = {}
        self._alive: list[Any] = []

    def hash(self, value: Any) -> str:
        """Return the hash of one value."""
        refuse_hooks_of_all_modules()
        self._add(value)
        return self._digest.hexdigest()

    def _say(self, *words: object) -> None:
        for word in words:
            content = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self._digest.update(f"{len(content)}:".encode() + content)

    def _again(self, value: Any, part: str = "") -> bool:
        """Return whether a value was met before, and then say only which it is."""
        known = (id(value), part)
        if known in self._seen:
            self._say("again", self._seen[known])
            return True
        self._seen[known] = len(self._seen)
        self._alive.append(value)  # so that no other object gets its id
        return False

    def _add(self, value: Any) -> None:
        """Add a value with all that it reaches."""
        if type(value) in _PLAIN:
            self._say(type(value).__name__, repr(value))
        elif not self._again(value):
            self._add_new(value)

    def _add_new(self, value: Any) -> None:
        if type(value) in (dict, types.MappingProxyType):
            self._mapping(value)
        elif type(value) in (list, tuple):
            self._items(value)
        elif type(value) in (set, frozenset):
            self._say("set", *sorted(_Hasher(self._evaluating).hash(item) for item in value))
        elif isinstance(value, types.ModuleType):
            self._whole(value)
        elif isinstance(value, logging.Logger):
            self._say("logger")
        elif isinstance(value, re.Pattern):
            self._say("pattern", value.pattern, value.flags)
        elif isinstance(value, type):
            self._say("a class itself")
            self._class(value, made=False)
        elif isinstance(value, types.CodeType):
            self._code(value)
        else:
            self._add_data(value)

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        self._say("mapping", len(value))
        for key in value:
            self._add(key)
            self._add(value[key])

    def _items(self, value: list[Any] | tuple[Any, ...]) -> None:
        self._say(type(value).__name__, len(value))
        for item in value:
            self._add(item)

    def _add_data(self, value: Any) -> None:
        import numpy as np
        import torch

        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            self._say("array", value.dtype, value.shape, value.tobytes())
            if type(value) is not np.ndarray and isinstance(value, np.ndarray):
                self._attributes_of(value)
        elif isinstance(value, torch.dtype | torch.layout | torch.memory_format | np.dtype):
            self._say(repr(value))
        elif isinstance(value, torch.device):
            self._say("device")
        elif isinstance(value, torch.nn.Module):
            self._module(value)
        elif isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            self._operator(value)
        else:
            self._add_code(value)

    def _add_code(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            self._say("partial")
            self._add([value.func, list(value.args), value.keywords])
            self._attributes_of(value)
        elif isinstance(value, types.MethodType):
            self._say("method")
            self._add([value.__self__, value.__func__])
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, property):
            self._say("property")
            self._add([value.fget, value.fset, value.fdel])
        elif isinstance(value, staticmethod | classmethod):
            self._say(type(value).__name__)
            self._add(value.__func__)
        elif isinstance(value, functools.cached_property):
            self._say("cached property")
            self._add(value.func)
        elif isinstance(value, _FIELDS):
            self._say("field", value.__name__)
        elif isinstance(value, _DESCRIPTORS):
            self._named(value, value.__objclass__.__module__)
        elif isinstance(value, _BUILTIN):
            self._builtin(value)
        elif isinstance(value, contextlib._GeneratorContextManager):  # as a decorator it starts anew at every call
            self._say("context")
            self._add([value.func, value.args, value.kwds])
        elif isinstance(value, weakref.ref):
            self._say("reference")
            self._add(value())
        elif isinstance(value, weakref.WeakKeyDictionary | weakref.WeakValueDictionary | weakref.WeakSet):
            raise NotHashable(f"a {type(value).__name__}, whose content comes and goes")
        elif not self._wrapper(value):
            self._instance(value)

    def _tensor(self, tensor: Any) -> None:
        import torch

        try:
            held = tensor.detach().cpu().contiguous().reshape(-1)
            content = held.view(torch.uint8).numpy().tobytes() if held.numel() else b""
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise NotHashable(f"a tensor of {tensor.dtype} ({error})") from error
        self._say("tensor", tensor.dtype, tuple(tensor.shape), content)
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
            self._attributes_of(tensor)

    def _module(self, module: Any) -> None:
        if self._evaluating and module.training:
            raise InTraining(type(module).__qualname__)
        if not {*_STATE} <= vars(module).keys():
            raise NotHashable(
                f"a {type(module).__module__}.{type(module).__qualname__}, whose code is not written in Python"
            )
        self._say("module")
        self._class(type(module), made=True)
        for group in _STATE:  # in their own order, which is that in which a Sequential calls its parts
            self._add({name: value for name, value in vars(module)[group].items() if value is not None})
        for name, value in sorted(vars(module).items()):
            if name not in (*_STATE, *_NO_MATTER):
                self._say(name)
                self._add(list(value.values()) if name.endswith(_HOOKS) and isinstance(value, Mapping) else value)

    def _operator(self, value: Any) -> None:
        name = str(value)
        if name.partition(".")[0].partition("::")[0] not in _OPERATORS:
            raise NotHashable(f"the operator {name}, whose code is registered elsewhere")
        self._say("operator", name)

    def _attributes_of(self, value: Any) -> None:
        """Add the class of an object, its fields in ``__slots__`` and its attributes."""
        self._class(type(value), made=True)
        found = dict(getattr(value, "__dict__", {}))
        for base in type(value).__mro__:
            if "__slots__" in vars(base):
                found |= slot_values(base, value)
        self._say("attributes", len(found))
        for name in sorted(found, key=str):
            self._say(name)
            self._add(found[name])

    def _instance(self, value: Any) -> None:
        kind = type(value)
        self._say("object")
        for base in _CONTAINERS:
            if isinstance(value, base):
                content = base(value)
                self._add_new(content) if type(content) not in _PLAIN else self._add(content)
                self._add(getattr(value, "default_factory", None))
                self._attributes_of(value)
                return
        if not has_hidden_state(kind):
            self._attributes_of(value)
            return
        where = owner_of_class(kind)
        if where != "known" or kind.__module__.partition(".")[0] in ("torch", "numpy", "random"):
            raise NotHashable(f"an object of type {kind.__module__}.{kind.__qualname__}")
        try:
            parts = copyreg.dispatch_table.get(kind, lambda each: each.__reduce_ex__(4))(value)
        except Exception as error:
            raise NotHashable(f"an object of type {kind.__module__}.{kind.__qualname__}") from error
        self._class(kind, made=True)
        self._add(
            [list(part) if hasattr(part, "__next__") else part for part in parts] if isinstance(parts, tuple) else parts
        )

    def _class(self, kind: type, *, made: bool) -> None:
        """Add a class and its bases: all attributes; of that of an object all but what ran when the object was made."""
        if self._again(kind, f"class {made}"):
            return
        if type(kind) is not type and owner_of_class(type(kind)) != "known":
            self._class(type(kind), made=True)
        for base in kind.__mro__:
            self._say("class", base.__module__, base.__qualname__)
            where = owner_of_class(base)
            if where == "known":
                refuse_elsewhere(base.__module__, base.__qualname__)
                self._replaced(base)
                continue
            if where == "installed":
                self._say(package_version(base.__module__))
            for name, value in sorted(vars(base).items()):
                if name not in OF_A_CLASS and not isinstance(value, _FIELDS) and not (made and name in MAKERS):
                    self._say(name)
                    self._add(value)

    def _replaced(self, kind: type) -> None:
        """Add the methods of a known library's class that somebody else has put there."""
        for name, value in sorted(vars(kind).items()):
            generated = isinstance(value, types.FunctionType) and value.__code__.co_filename.startswith("<string")
            if isinstance(value, types.FunctionType) and not generated and owner(value.__globals__) == "own":
                self._say(name)
                self._add(value)

    def _function(self, function: types.FunctionType) -> None:
        self._say("function", function.__globals__.get("__name__"), function.__qualname__)
        where = owner(function.__globals__)
        if where == "known":
            refuse_elsewhere(str(function.__globals__.get("__name__")), function.__name__)
        else:
            self._say(package_version(function.__module__ or "") if where == "installed" else "")
            self._code(function.__code__)
        self._add([function.__defaults__, function.__kwdefaults__])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name == "__class__":
                continue
            self._say("variable", name)
            try:
                content = cell.cell_contents
            except ValueError as error:
                raise NotHashable(f"the variable {name} of {function.__qualname__}, which has no value yet") from error
            self._add(content)
        for name, value in sorted(vars(function).items()):
            self._say("attribute", name)
            self._add(value)
        if where == "own":
            self._variables(function)

    def _variables(self, function: types.FunctionType) -> None:
        """Add what a function of the user's own takes from its module and from others."""
        found, namespace = reached(function.__code__), function.__globals__
        if found.rebound:
            raise NotHashable(f"{function.__qualname__}, which sets the variable {min(found.rebound)} while it runs")
        refuse_names(function.__qualname__, found.names)
        for chain in sorted(found.chains):
            if chain[0] in namespace:
                self._say("variable", *chain)
                self._follow(namespace[chain[0]], chain[1:])
        for level, name, parts in sorted(found.imports):
            self._say("import", level, name, *parts)
            absolute = "." * level + name
            absolute = importlib.util.resolve_name(absolute, namespace.get("__package__")) if level else name
            module = importlib.import_module(absolute)
            for part in parts:
                self._follow(module, (part,))
            if not parts:
                self._whole(module)
                self._whole(sys.modules[absolute.partition(".")[0]])

    def _follow(self, value: Any, names: tuple[str, ...]) -> None:
        """Add a variable; of a module only what is taken of it."""
        taken = 0
        while isinstance(value, types.ModuleType) and taken < len(names):
            if not hasattr(value, names[taken]) and not import_submodule(value, names[taken]):
                self._say("missing")
                return
            value, taken = getattr(value, names[taken]), taken + 1
        self._add(value)

    def _whole(self, module: types.ModuleType) -> None:
        """Add a module that is used as a whole: of the user's own all its variables."""
        where = owner_of_module(module.__name__) if module.__name__ in sys.modules else owner(vars(module))
        self._say("module of code", module.__name__)
        if where == "known":
            refuse_elsewhere(module.__name__, "")
        elif where == "installed":
            self._say(package_version(module.__name__))
        elif module.__name__ == "__main__":
            raise NotHashable("the module __main__ as a whole")
        elif not self._again(module, "whole"):
            for name, value in sorted(vars(module).items()):
                if name not in OF_A_MODULE:
                    self._say(name)
                    self._add(value)

    def _code(self, code: types.CodeType) -> None:
        self._say("code")
        for fact in facts(code):
            self._constant(fact)

    def _constant(self, value: Any) -> None:
        """Add a constant by its value: whether two equal ones are one object is up to the compiler."""
        if isinstance(value, types.CodeType):
            self._say(value.co_name)
            self._code(value)
        elif isinstance(value, tuple):
            self._say("tuple", len(value))
            for item in value:
                self._constant(item)
        elif isinstance(value, frozenset):
            self._say("set", *sorted(map(repr, value)))
        else:
            self._say(type(value).__name__, repr(value))

    def _builtin(self, value: Any) -> None:
        holder = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or getattr(holder, "__module__", None) or ""
        if isinstance(holder, types.ModuleType):
            module = module or holder.__name__
        elif holder is not None:
            self._add(holder)
            module = module if isinstance(holder, type) else type(holder).__module__
        self._named(value, module)

    def _named(self, value: Any, module: str) -> None:
        """Add a function that is not written in Python by its name, if it belongs to a known library."""
        name = str(getattr(value, "__qualname__", "") or getattr(value, "__name__", "") or repr(value))
        if owner_of_module(module) != "known":
            raise NotHashable(f"the function {name}, which is not written in Python")
        refuse_elsewhere(module, name)
        self._say("builtin", module, name)

    def _wrapper(self, value: Any) -> bool:
        """Add functions of numpy, and what is wrapped by a cache; returns whether the value is one of these."""
        import numpy as np

        kind = type(value)
        if isinstance(value, np.ufunc):
            name = str(value.__name__)
            if getattr(np, name, None) is not value:
                raise NotHashable(f"the function {name}, which is not written in Python")
            self._say("ufunc", name)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._say("cache")
            self._add(cast(Any, value).__wrapped__)
            self._add(vars(value))
        elif kind.__module__.startswith("numpy") and kind.__name__ == "_ArrayFunctionDispatcher":
            self._named(value, str(value.__module__))
        else:
            return False
        return True
