"""Hashes of large files and folders kept beside a store, so that the next command need not read them again."""

from __future__ import annotations

import platform
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness.core.errors import UserError
from harness.core.files import parse_json, write_json
from harness.core.identity import content_key
from harness.core.locks import lock

_Table = dict[str, list[str]]
"""Name of a file or folder -> its state (device, inode, size, times) and its SHA-256."""
_PROCESS: _Table = {}


@dataclass(frozen=True)
class HashCache:
    """A table that may be lost at any time: one of another machine, a damaged or an edited one counts as empty.

    A file system's numbers name a file on one machine only, so the table is bound to it.
    """

    path: Path | None
    """Where it is kept, if that folder exists; None: for this process only."""
    _table: _Table = field(default_factory=dict)

    def get(self, name: str, state: str) -> str | None:
        """Return the hash that was kept of a file or folder in this state."""
        if not self._table and self.path:
            self._table.update(_read(self.path))
        for table in (_PROCESS, self._table):
            if name in table and table[name][0] == state:
                return table[name][1]
        return None

    def put(self, name: str, state: str, value: str) -> None:
        """Keep a hash; a store that cannot be written keeps none."""
        _PROCESS[name] = self._table[name] = [state, value]
        if self.path is None or not self.path.parent.is_dir():
            return
        with suppress(OSError, UserError), lock(self.path.parent / "locks" / "hashes.lock"):
            table = {**_read(self.path), name: [state, value]}
            write_json(self.path, {"machine": machine(), "hashes": table, "seal": _seal(table)})


@cache
def machine() -> str:
    """Return a name of this machine that outlives its boots; where it has none, one of this process."""
    with suppress(OSError):
        text = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
        return content_key(["machine", text, platform.node(), uuid.getnode()])
    return content_key(["machine", platform.node(), uuid.getnode()])


def _seal(table: _Table) -> str:
    return content_key(["hashes", 1, machine(), table])


def _read(path: Path) -> _Table:
    try:
        kept = parse_json(path.read_text(encoding="utf-8"))
        table = kept["hashes"]
        whole = kept["seal"] == _seal(table) and all(
            re.fullmatch("[0-9a-f]{64}", value) is not None for _, value in table.values()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return table if whole else {}
