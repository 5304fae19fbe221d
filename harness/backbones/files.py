"""Checkpoint files as they are found: opened without running any code in them, and named for what they are when they are not one."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.core.errors import DataMissing, UserError, first_line
from harness.core.intact import ZIP_ERRORS, is_zip
from harness.core.limits import refuse_zip

State = dict[str, torch.Tensor]
_HEAD_BYTES = 512
_AGAIN = "fetch or make the file again"
_OTHER = "--classifier MODULE:FUNCTION measures a network that only its own code can load (docs/checkpoints.md)"
_SUFFIXES = {".onnx": "an ONNX graph", ".msgpack": "a checkpoint of Flax", ".tflite": "a network of TensorFlow Lite"}
_MAGIC = {
    b"\x89HDF": ("an HDF5 file, as Keras writes it", _OTHER),
    b"\x1f\x8b": ("an archive compressed by gzip", "unpack it, and give the file inside"),
    b"\xfd7zXZ": ("an archive compressed by xz", "unpack it, and give the file inside"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
}
_REBUILT = re.compile(r"_rebuild_(tensor|tensor_v2|parameter)")


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Return the content of a checkpoint file; large tensors stay on the disk until they are used.

    Objects of other classes than tensors and plain containers, such as the hyper-parameters of a training, are replaced by
    empty ones: their code is never imported.

    Raises:
        DataMissing: there is no such file.
        UserError: it is damaged, or no file of weights.
    """
    if not path.is_file():
        raise DataMissing(f"there is no checkpoint {path}", "the file does not exist", "correct --checkpoint")
    _refuse_others(path)
    if _is_safetensors(path):
        return read_safetensors(path)
    try:
        content = _load(path)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError,
            AssertionError, ArithmeticError, MemoryError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        raise damaged(path, f"torch cannot read it: {first_line(error)}") from error
    if isinstance(content, Inert):
        raise UserError(
            f"{path} holds a whole network, not its weights",
            f"it was saved with torch.save(model), and only the code of {type(content).__name__} could rebuild it",
            f"save the weights where that code is: torch.save(model.state_dict(), ...); or {_OTHER}",
        )
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} cannot be read",
            f"it holds a {type(content).__name__}, not a state dict",
            "save the weights alone: torch.save(model.state_dict(), ...)",
        )
    return content


def read_safetensors(path: Path) -> State:
    """Return the tensors of a safetensors file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, first_line(error)) from error


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do; of a file that is no archive of torch either, its suffix decides."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" or (path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80")))


def damaged(path: Path, why: str) -> UserError:
    """Return the error of a file that cannot be read."""
    return UserError(f"{path} cannot be read", why, f"the file is damaged or of another kind; {_AGAIN}")


def _refuse_others(path: Path) -> None:
    """Refuse what is known to be no file of weights, by its first bytes or its suffix."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    kind, fix = next((found for magic, found in _MAGIC.items() if head.startswith(magic)), ("", ""))
    if not head:
        kind, fix = "an empty file", _AGAIN
    elif path.suffix in _SUFFIXES:
        kind, fix = _SUFFIXES[path.suffix], _OTHER
    elif not kind and path.suffix != ".safetensors" and _is_text(head):
        first = head.decode(errors="replace").strip().splitlines()
        shown = "a web page" if b"<html" in head.lower() or b"<!doctype" in head.lower() else "text"
        kind, fix = f"{shown}, beginning with {first[0][:60] if first else ''!r}", f"it is not the download; {_AGAIN}"
    elif not kind and is_zip(path):
        kind, fix = _archive(path)
    if kind:
        raise UserError(f"{path} is no checkpoint", f"it is {kind}", fix)


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and not head.startswith(b"PK")


def _archive(path: Path) -> tuple[str, str]:
    """Return what a zip archive is that torch has not written as a checkpoint, and what to do; empty if it has."""
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_zip(archive, path, path.stat().st_size)
            names = archive.namelist()
    except ZIP_ERRORS as error:
        raise damaged(path, first_line(error)) from error
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive: a program with its weights", f"load it by torch.jit.load in a function; {_OTHER}"
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays, as JAX trainings write them", f"convert it to PyTorch; or {_OTHER}"
    if not any(name.endswith("data.pkl") for name in names):
        return f"a zip archive of {len(names)} files", "unpack it, and give the file of weights inside"
    return "", ""


class Inert:
    """Stands for an object of a class that is not loaded; holds nothing, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Make one, whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Ignore a state."""

    def _ignore(self, *_: Any) -> None:
        pass

    append = extend = update = add = __setitem__ = _ignore


class _WithoutCode(pickle.Unpickler):
    """An unpickler that knows tensors and plain containers, and replaces everything else by an `Inert` of that name."""

    def find_class(self, module: str, name: str) -> Any:
        top = module.partition(".")[0]
        if (module == "torch._utils" and _REBUILT.fullmatch(name)) or (module, name) == ("collections", "OrderedDict"):
            return super().find_class(module, name)
        if top == "torch":
            found = getattr(torch, name, None) if module in ("torch", "torch.storage") else None
            if isinstance(found, torch.dtype) or (isinstance(found, type) and "Storage" in name) or name == "Size":
                return found
        return type(f"{module}.{name}", (Inert,), {})


def _load(path: Path) -> Any:
    """Load a file of torch. Files that hold objects of unknown classes are read again, with those left empty."""
    if path.suffix == ".safetensors":  # torch would take the suffix for the content
        with path.open("rb") as stream:
            return _load_from(stream, {})
    return _load_from(path, {"mmap": True} if is_zip(path) else {})


def _load_from(source: Any, lazily: Mapping[str, Any]) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True, **lazily)
    except pickle.UnpicklingError:
        # No name of the file is looked up but those of tensors, so nothing in it can run.
        reader: Any = ModuleType("pickle_without_code")
        reader.Unpickler, reader.load = _WithoutCode, lambda stream, **options: _WithoutCode(stream, **options).load()
        if not isinstance(source, Path):
            source.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=False, pickle_module=reader, **lazily)
