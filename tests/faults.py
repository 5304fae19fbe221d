"""Faults of the file system, injected into every process of a command: no real disk is filled.

A rule is ``ERROR:EVENT:PATTERN``: the call fails with this error of ``errno`` if its path matches. Events are ``open`` (for
writing), ``rename`` and ``mkdir``.
"""

from __future__ import annotations

import os
from pathlib import Path

HOOK = """
import errno, fnmatch, os, sys
rules = [rule.split(":", 2) for rule in os.environ.get("FAULTS", "").split(",") if rule]
events = {"open": "open", "os.rename": "rename", "os.mkdir": "mkdir"}

def hook(name, arguments):
    if name not in events or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    if name == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    path = os.fsdecode(arguments[0])
    for code, event, pattern in rules:
        if event == events[name] and fnmatch.fnmatch(path, pattern):
            number = getattr(errno, code)
            raise OSError(number, os.strerror(number), path)

if rules:
    sys.addaudithook(hook)
"""


def faults(folder: Path, plugins: Path, *rules: str) -> dict[str, str]:
    """Return the environment in which commands meet faults.

    Args:
        folder: Where the hook is written.
        plugins: Folder of plugins that the commands find.
        rules: See above.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join(filter(None, (str(folder), str(plugins), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "FAULTS": ",".join(rules)}
