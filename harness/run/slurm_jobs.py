"""Slurm as the executor sees it: what a job asks for, in which state it is, and why it ended. Runs Slurm's commands only."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.core.errors import UserError
from harness.core.settings import Settings
from harness.store.cells import Cell

ELEMENTS = 1000
"""Most elements of one array; Slurm's own limit, ``MaxArraySize``, is 1001 unless the cluster changes it."""
_TIMEOUT = 60.0
_LIVE = frozenset(("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_FED",
                   "REQUEUE_HOLD", "SPECIAL_EXIT", "RESIZING", "SIGNALING", "STAGE_OUT"))  # fmt: skip
_HELD = ("JobHeld", "JobHoldMaxRequeue", "launch failed requeued held", "BadConstraints", "PartitionConfig", "InvalidAccount",
         "InvalidQOS", "DependencyNeverSatisfied")  # fmt: skip
"""Reasons for which a job waits until somebody does something."""


def _word() -> Any:
    """Return a field for a word of a job script: nothing in it may end its line or begin a command of the shell."""
    return Field(default=None, pattern=r"""^[^\s'"`$;\\\x00-\x1f]*$""")


class JobSettings(Settings):
    """What a job asks Slurm for; of a task on several devices, for each device. None: as the table ``[slurm]`` says."""

    partition: str | None = _word()
    account: str | None = _word()
    qos: str | None = _word()
    constraint: str | None = _word()
    gpus: int | None = Field(default=None, ge=0)
    """GPUs of a device: 1, or 0 on a cluster of CPUs."""
    cpus: int | None = Field(default=None, ge=1)
    """Least number of CPUs; a cell's threads and data readers may ask for more."""
    memory_gb: float | None = Field(default=None, gt=0)
    minutes: int | None = Field(default=None, ge=1)
    """Time limit of a job; what is unfinished then goes on in the next, from its last checkpoint."""


class SlurmSettings(JobSettings):
    """The table ``[slurm]`` of a profile."""

    gpus: int = Field(default=1, ge=0)
    cpus: int = Field(default=1, ge=1)
    memory_gb: float = Field(default=16.0, gt=0)
    minutes: int = Field(default=240, ge=1)
    setup: tuple[str, ...] = ()
    """Lines of shell before the work (``module load cuda``); they run as they stand."""
    array_limit: int = Field(default=64, ge=1)
    """Jobs of one array that run at once."""
    job_minutes: float = Field(default=30.0, gt=0)
    """Expected minutes of one job: so many short cells or shards go together, but no more than keep ``array_limit`` busy."""
    requeues: int = Field(default=10, ge=0)
    """How often a job may reach its time limit and go on."""
    pause_seconds: int = Field(default=90, ge=5)
    """Seconds before the time limit at which work is asked to pause at its next checkpoint."""
    poll_seconds: float = Field(default=20.0, gt=0)
    """Seconds between two looks at Slurm's queue."""
    cells: dict[str, JobSettings] = Field(default_factory=dict)
    """What differs for some cells, by ``kind/name``, name or kind."""


@dataclass(frozen=True)
class Request:
    """What the jobs of one array ask for, each."""

    partition: str
    account: str
    qos: str
    constraint: str
    gpus: int
    cpus: int
    memory_mb: int
    minutes: int

    def to_row(self) -> dict[str, Any]:
        """Return what ``plan`` shows."""
        return {
            "partition": self.partition or "(default)",
            "gpus": self.gpus,
            "cpus": self.cpus,
            "memory_gb": round(self.memory_mb / 1024, 1),
            "limit_minutes": self.minutes,
        }


def request_for(cell: Cell, settings: SlurmSettings, device: str) -> Request:
    """Return what a job that does a cell, or shards of it, asks for."""
    found: dict[str, Any] = {name: getattr(settings, name) for name in JobSettings.model_fields}
    for name in (cell.shown_kind, cell.name, f"{cell.shown_kind}/{cell.name}"):
        if name in settings.cells:
            found |= settings.cells[name].model_dump(exclude_none=True)
    devices = max(1, cell.resources.devices)
    return Request(
        partition=found["partition"] or "",
        account=found["account"] or "",
        qos=found["qos"] or "",
        constraint=found["constraint"] or "",
        gpus=found["gpus"] * devices if device == "cuda" else 0,
        cpus=max(found["cpus"], cell.resources.threads) * devices,
        memory_mb=math.ceil(found["memory_gb"] * 1024) * devices,
        minutes=found["minutes"],
    )


def bundle_size(count: int, minutes: float, settings: SlurmSettings) -> int:
    """Return how many of ``count`` equal tasks of some minutes go into one job."""
    longest = max(1, int(settings.job_minutes / max(minutes, 1e-3)))
    return min(longest, math.ceil(count / settings.array_limit))


@dataclass(frozen=True)
class JobState:
    """One job in the queue."""

    id: str
    state: str
    node: str
    reason: str

    @property
    def live(self) -> bool:
        """Whether it runs or will run."""
        return self.state in _LIVE

    @property
    def held(self) -> bool:
        """Whether it waits for somebody to do something."""
        return self.state == "PENDING" and self.reason.startswith(_HELD)

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"Slurm job {self.id}" + (f" on {self.node}" if self.node else f" ({self.reason})")


def job_name(store: Path) -> str:
    """Return the name that all jobs of a store bear, by which they are found again."""
    return f"harness-{hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:10]}"


def parse_queue(text: str) -> dict[tuple[str, int], JobState]:
    """Return the jobs of ``squeue``'s lines (comment, array index, id, state, nodes, reason) by batch and element."""
    found = {}
    for line in text.splitlines():
        batch, index, number, state, node, reason = line.split("|", 5)
        found[batch, int(index) if index.isdigit() else 0] = JobState(number, state, node, reason.strip("()"))
    return found


def queue(name: str) -> dict[tuple[str, int], JobState] | None:
    """Return the jobs of a name that Slurm knows, also those that ended a while ago; None if it cannot be asked now."""
    text = _ask("squeue", "--noheader", "--array", "--states=all", f"--name={name}", "--format=%k|%K|%i|%T|%N|%r")
    return None if text is None else parse_queue(text)


def cancel(name: str) -> None:
    """Cancel all jobs of a name."""
    _ask("scancel", f"--name={name}")


def accounted(job: str) -> dict[str, str]:
    """Return what the accounting knows of a job that has ended (State, ExitCode, MaxRSS); nothing where there is none."""
    text = _ask("sacct", "--noheader", "--parsable2", f"--jobs={job}", "--format=State,ExitCode,MaxRSS")
    return parse_accounting(text or "")


def parse_accounting(text: str) -> dict[str, str]:
    """Return state and exit code of a job from the lines of ``sacct``, and the highest memory use among its steps."""
    rows = [
        dict(zip(("State", "ExitCode", "MaxRSS"), line.split("|"), strict=False)) for line in text.splitlines() if line
    ]
    if not rows:
        return {}
    peak = max((row.get("MaxRSS", "") for row in rows), key=_bytes)
    worst = next((row for row in rows if row["State"].startswith("OUT_OF_ME")), rows[0])
    return {"State": worst["State"].split()[0], "ExitCode": worst["ExitCode"], "MaxRSS": peak}


def _bytes(text: str) -> float:
    """Return a number of bytes that Slurm writes with a unit (``7821340K``)."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        return float(number) * unit
    except ValueError:
        return 0.0


def ended_event(
    job: JobState | None, facts: Mapping[str, str], request: Request, peak_mb: float, log: str, key: str
) -> dict[str, Any]:
    """Return what has become of the unanswered tasks of a job that has ended: ``failed`` where another try would end alike.

    Args:
        job: Its last state in the queue; None if the queue has forgotten it.
        facts: What the accounting knows of it.
        request: What it asked for.
        peak_mb: Highest memory use of a process that its worker has seen; 0 if unknown.
        log: Slurm's log of the job.
        key: Name under which ``[slurm.cells]`` gives its cell something else.
    """
    state = job.state if job else facts.get("State", "")
    name = f"Slurm job {job.id}" if job else "its Slurm job"
    if state.startswith("OUT_OF_ME"):
        return out_of_memory(name, request, max(peak_mb, _bytes(facts.get("MaxRSS", "")) / 2**20), log, key)
    if state == "TIMEOUT":
        why = f"{name}: {request.minutes} minutes passed; log {log}"
        fix = (
            "run the same command again, it goes on from the last checkpoint; or allow more, such as --set "
            f"slurm.cells.{key}.minutes={request.minutes * 2}"
        )
        return _failed("time limit reached", why, fix)
    if state == "CANCELLED":
        return _failed("cancelled", f"{name} was cancelled (scancel); log {log}", "run the same command again")
    words = {
        "NODE_FAIL": f"node {job.node if job else ''} failed", "BOOT_FAIL": "its node did not start", "": "Slurm has forgotten it",
        "FAILED": f"it failed{', exit code ' + facts['ExitCode'] if 'ExitCode' in facts else ''}",
    }  # fmt: skip
    return {"event": "died", "why": f"{name}: {words.get(state, f'it ended as {state}')}; log {log}"}


def out_of_memory(name: str, request: Request, peak_mb: float, log: str, key: str) -> dict[str, Any]:
    """Return the failure of a task that needed more memory than its job had; ``peak_mb`` is 0 if unknown."""
    used = f", {peak_mb / 1024:.1f} GB were in use" if peak_mb else ""
    why = f"{name}: {request.memory_mb / 1024:.1f} GB were allowed{used}; log {log}"
    more = math.ceil(request.memory_mb / 512)
    return _failed("out of memory", why, f"allow more, such as --set slurm.cells.{key}.memory_gb={more}")


def _failed(what: str, why: str, fix: str) -> dict[str, Any]:
    error = {"what": what, "why": why, "fix": fix}
    return {"event": "failed", "damaged": False, "cpu_seconds": 0.0, "error": error}


def require_slurm() -> None:
    """Make sure that jobs can be submitted from here.

    Raises:
        UserError: Slurm's commands or submitit are missing.
    """
    import importlib.util

    missing = [tool for tool in ("sbatch", "squeue", "scancel") if shutil.which(tool) is None]
    if missing:
        raise UserError(
            "Slurm is not on this machine", f"no command {', '.join(missing)}", "start the run on a login node"
        )
    if importlib.util.find_spec("submitit") is None:
        raise UserError(
            "submitit is not installed", "the executor slurm submits with it", "pip install 'submitit>=1.5'"
        )


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def expected_jobs(cells: Sequence[Cell], settings: SlurmSettings, device: str) -> list[dict[str, Any]]:
    """Return how many jobs of each kind and request some cells need, a row each."""
    rows: dict[tuple[str, Request, int], list[int]] = {}
    for (kind, _, request, devices), members in _grouped(cells, settings, device).items():
        row = rows.setdefault((kind, request, devices), [0, 0])
        row[0] += len(members)
        row[1] += sum(1 for cell in members if cell.shards)  # what joins the shards
        for tasks in [len(cell.shards) for cell in members if cell.shards] + [sum(not cell.shards for cell in members)]:
            minutes = sum(cell.resources.minutes for cell in members) / len(members)
            row[1] += -(-tasks // bundle_size(tasks, minutes, settings)) if tasks else 0
    return [
        {"kind": kind, "cells": count, "jobs": jobs, "devices": devices, **request.to_row()}
        for (kind, request, devices), (count, jobs) in rows.items()
    ]


def _grouped(
    cells: Sequence[Cell], settings: SlurmSettings, device: str
) -> dict[tuple[str, str, Request, int], list[Cell]]:
    groups: dict[tuple[str, str, Request, int], list[Cell]] = {}
    for cell in cells:
        key = cell.shown_kind, cell.name, request_for(cell, settings, device), max(1, cell.resources.devices)
        groups.setdefault(key, []).append(cell)
    return groups
