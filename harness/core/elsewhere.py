"""Code whose answers come from outside the program, so that no hash of a model sees them."""

from __future__ import annotations

from collections.abc import Set

_ELSEWHERE = ("sys", "os", "posix", "nt", "io", "_io", "importlib", "inspect", "gc", "ctypes", "_ctypes", "pickle", "_pickle", 
              "marshal", "shelve", "sqlite3", "socket", "_socket", "subprocess", "urllib", "http", "random", "_random", "secrets",
              "time", "datetime", "_datetime", "uuid", "tempfile", "glob", "shutil", "mmap", "multiprocessing")  # fmt: skip
"""Modules of Python whose functions answer from outside the program: files, the clock, chance, whatever is loaded."""
_NAMES_ELSEWHERE = ("globals", "exec", "__import__", "open", "input", "compile", "read_text", "read_bytes", "load", "load_file",
                    "load_model", "load_state_dict_from_url", "load_url", "fromfile", "loadtxt", "genfromtxt", "memmap", "imread",
                    "read_image", "decode_image", "read_csv", "read_parquet", "from_pretrained", "urlopen", "environ", "getenv",
                    "f_globals", "__globals__", "__builtins__")  # fmt: skip
"""Names of functions that read what no hash of this process sees."""


class NotHashable(Exception):
    """Say what of a model cannot be read."""


def refuse_elsewhere(module: str, name: str) -> None:
    """Refuse code of Python itself whose answers come from outside the program.

    Raises:
        NotHashable: it is such code.
    """
    if module.partition(".")[0] in _ELSEWHERE:
        raise NotHashable(f"{module}{'.' * bool(name)}{name}: what it gives is not in the model")


def refuse_names(function: str, names: Set[str]) -> None:
    """Refuse a function that names what reads from elsewhere.

    Raises:
        NotHashable: it does.
    """
    for name in sorted(names & {*_NAMES_ELSEWHERE}):
        raise NotHashable(f"{function}, which uses {name}: what that gives is not in the model")


def refuse_hooks_of_all_modules() -> None:
    """Refuse what torch calls in every module of the process.

    Raises:
        NotHashable: there is such a hook.
    """
    import torch

    for name, value in vars(torch.nn.modules.module).items():
        if name.startswith("_global_") and name.endswith("hooks") and isinstance(value, dict) and value:
            raise NotHashable("hooks that torch calls in every module")
