"""The status of a store's last run, as status.json states it, and whether that run is still alive."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core.errors import UserError, refuse_malformed
from harness.core.files import parse_json
from harness.store.housekeeping import in_use

FILE = "status.json"
SCHEMA = 2
"""2 added the process, its heartbeat, counts by kind and the time left; files without a schema are of version 1."""
State = Literal["running", "finished", "interrupted"]
Verdict = Literal["running", "finished", "failed", "interrupted", "dead", "unknown"]
HEARTBEAT = 5.0
"""Seconds between two writes of a run, whether or not something has happened."""
HEARTBEAT_LIMIT = 120.0
"""Seconds after which a run on another machine that has written nothing counts as dead."""


@dataclass(frozen=True)
class RunStatus:
    """What the last run in a store does or did."""

    facts: Mapping[str, Any]
    """Content of status.json."""
    verdict: Verdict
    """``failed``: finished, but not all cells are done; ``dead``: it ended without a word, such as by a kill or a power cut;
    ``unknown``: an earlier version wrote the file, which does not say."""
    reason: str = ""
    """How a dead run was recognised."""
    heartbeat_age: float | None = None
    """Seconds since the file was written, at least 0 whatever the clocks say; None where unknown."""

    @property
    def good(self) -> bool:
        """Whether the run is running, or finished without failures."""
        return self.verdict in ("running", "finished")

    @property
    def complete(self) -> bool:
        """Whether all cells of the run are done."""
        return self.verdict == "finished" or self.facts.get("total") == self.facts.get("done")


def read_status(store: Path, now: float | None = None) -> RunStatus | None:
    """Read the status of a store; None if no run has written one.

    Args:
        store: Folder of the store.
        now: Unix time; default: the present.

    Raises:
        UserError: the file is not a status file.
    """
    path = store / FILE
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
        if not {"total", "done", "failed", "cells"} <= facts.keys():
            raise ValueError("fields are missing")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read", str(error), "delete it; the next run writes it again") from error
    with refuse_malformed(path, "delete it; the next run writes it again"):
        age = None if "updated" not in facts else seconds_since(float(facts["updated"]), now)
        verdict, reason = _verdict(facts, age)
    return RunStatus(facts, verdict, reason, age)


def seconds_since(then: float, now: float | None = None) -> float:
    """Seconds from a Unix time until now, at least 0: a clock that was set back must not give a negative age."""
    return max(0.0, (time.time() if now is None else now) - then)


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, which tells it from a later one of the same id; None if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def other_host(store: Path, patience: float = 2.5 * HEARTBEAT) -> str:
    """Return the name of another machine whose run in this store is alive although this machine sees no lock of it; or nothing.

    What tells is that the run writes again; the clocks of two machines need not agree. Looking takes time only where the last run
    was another machine's, and is not known to have ended.
    """
    first = _foreign(store)
    if first is None or in_use(store):
        return ""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(0.2)
        now = _foreign(store)
        if now is None:
            return ""
        if now != first:
            return now[0]
    return ""


def _foreign(store: Path) -> tuple[str, float] | None:
    """Return host and heartbeat of the last run if it is another machine's and may be alive."""
    with suppress(UserError, OSError):
        status = read_status(store)
        if status and status.verdict == "running" and status.facts.get("host") != socket.gethostname():
            return str(status.facts["host"]), float(status.facts["updated"])
    return None


def _verdict(facts: Mapping[str, Any], age: float | None) -> tuple[Verdict, str]:
    ended: Verdict = "failed" if facts["failed"] else "finished"
    if "schema" not in facts:
        whole = facts["done"] == facts["total"] and not facts.get("running")
        return (
            (ended, "") if whole or facts["failed"] else ("unknown", "an earlier version of the harness wrote the file")
        )
    if facts["state"] == "finished":
        return ended, ""
    if facts["state"] == "interrupted":
        return "interrupted", ""
    if facts["host"] != socket.gethostname():
        if age is not None and age > HEARTBEAT_LIMIT:
            return "dead", f"no heartbeat from {facts['host']} for {age:.0f} s"
        return "running", ""
    return ("running", "") if _alive(facts) else ("dead", f"process {facts['pid']} has ended")


def _alive(facts: Mapping[str, Any]) -> bool:
    start = process_start(facts["pid"])
    if start is not None or os.path.isdir("/proc/self"):
        return start is not None and facts["process_start"] in (None, start)
    try:
        os.kill(facts["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
