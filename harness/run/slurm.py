"""The executor ``slurm``: equal tasks that can start together become one array of Slurm jobs, submitted with submitit.

    STORE/slurm/BATCH/batch.json      what was submitted; written before it is
    STORE/slurm/BATCH/0000.json       a job file for each element of the array, and its events, see ``remote``
    STORE/slurm/BATCH/logs/           what Slurm and submitit write

The submitting process may die: jobs go on, and the next run in the store finds them by their name and waits for them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from harness.core.errors import UserError
from harness.core.files import parse_json, remove_tree, write_json
from harness.core.locks import lock
from harness.core.settings import Settings as SettingsModel
from harness.run.executor import Event, Executor
from harness.run.progress import ProgressReporter
from harness.run.queue import Task
from harness.run.remote import JobFile, Runner, answers, work
from harness.run.slurm_jobs import (
    ELEMENTS,
    JobState,
    Request,
    SlurmSettings,
    accounted,
    bundle_size,
    cancel,
    ended_event,
    expected_jobs,
    job_name,
    out_of_memory,
    queue,
    request_for,
    require_slurm,
)
from harness.store.artifacts import Store
from harness.store.cells import Cell

FOLDER = "slurm"
_FILE_SECONDS = 2.0
"""Between two looks at the files of the jobs."""
_SETTLE_SECONDS = 15.0
"""For so long a job may be missing in the queue, or its last words in its file, before that means something."""
_UNTIL_KILLED_SECONDS = 1800.0
_NEAR = 0.9
"""A process killed by SIGKILL at this part of the memory allowed is taken to be out of memory."""


@dataclass
class Element:
    """One job of an array, as it was submitted."""

    batch: Path
    number: int
    job: JobFile
    request: Request
    submitted: float
    gone_since: float = 0.0
    peak_mb: float = 0.0

    @property
    def id(self) -> tuple[str, int]:
        """What it is known by in the queue."""
        return self.batch.name, self.number

    @property
    def log(self) -> Path:
        """The log that Slurm writes of it, or their folder."""
        folder = self.batch / "logs"
        found = [*folder.glob(f"*_{self.number}_0_log.err"), *folder.glob("*_0_log.err")]  # an array, or one job alone
        return found[0] if found else folder


class SlurmExecutor(Executor):
    """Runs a plan on a cluster. Store, data and this Python are on a file system that all nodes share."""

    Settings = SlurmSettings

    def __init__(
        self, store: Store, slots: int, device: str, board: ProgressReporter, settings: SettingsModel | None = None
    ) -> None:
        super().__init__(store, slots, device, board, settings)
        require_slurm()
        self.table = cast(SlurmSettings, self.settings)
        self.name, self.folder = job_name(store.root), store.root / FOLDER
        self.gathered: list[Task] = []
        self.elements: dict[tuple[str, int], Element] = {}
        self.noted: set[str] = set()
        self._began, self._read, self._asked = time.time(), 0.0, 0.0

    @classmethod
    def choose_device(cls, asked: str, settings: SettingsModel) -> tuple[str, int]:
        """Return ``cuda`` if the profile asks for GPUs: those of the machine that submits do not matter."""
        table = cast(SlurmSettings, settings)
        return ("cuda" if table.gpus else "cpu") if asked == "auto" else asked, table.array_limit

    @classmethod
    def requests(cls, cells: Sequence[Cell], device: str, slots: int, settings: SettingsModel) -> list[dict[str, Any]]:
        """Return jobs and what they ask for, by kind."""
        return expected_jobs(cells, cast(SlurmSettings, settings), device)

    @classmethod
    def remaining(cls, store: Path) -> list[str]:
        """Return the jobs of a store that run or wait, with their logs."""
        known = queue(job_name(store))
        if known is None:
            return ["Slurm cannot be asked from this machine"]
        lines = []
        for (batch, number), job in known.items():
            facts = _facts(store / FOLDER / batch)
            if job.live and facts and number < len(facts["labels"]):
                log = next(iter(facts["logs"][number : number + 1]), "")
                lines.append(f"{job.place}: {facts['labels'][number]}, {job.state.lower()}\n    log: {log}")
        return lines

    def has_room(self, cell: Cell) -> bool:
        """Return true: Slurm has a queue."""
        return True

    def start(self, task: Task) -> None:
        """Gather a task; all that were gathered are submitted together."""
        self.gathered.append(task)

    def events(self) -> Iterator[tuple[Task, Event]]:
        """Submit what was gathered, and yield what the files and the queue say of jobs."""
        self._submit_gathered()
        now = time.monotonic()
        if now - self._read >= min(_FILE_SECONDS, self.table.poll_seconds):
            self._read = now
            for element in list(self.elements.values()):
                yield from self._heard(element, element.job.events())
        if now - self._asked >= self.table.poll_seconds:
            self._asked = now
            yield from self._look_at_queue()
        for element in [one for one in self.elements.values() if not one.job.unanswered]:
            del self.elements[element.id]
        time.sleep(0.5)

    def interrupted(self) -> None:
        """Ask whether the jobs are cancelled; without a terminal they go on."""
        count = len(self.elements)
        if not count:
            return
        answer = ""
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            if sys.stdin.isatty() and sys.stderr.isatty():
                print(f"{count} Slurm jobs run or wait. Cancel them? [y/N] ", end="", file=sys.stderr, flush=True)
                answer = sys.stdin.readline().strip().lower()
        if answer in ("y", "yes"):
            cancel(self.name)
            print(f"{count} Slurm jobs cancelled", file=sys.stderr)
            return
        print(
            f"{count} Slurm jobs go on; the same command waits for them, scancel --name={self.name} cancels them",
            file=sys.stderr,
        )

    def stop(self) -> None:
        """Remove the files of jobs that have ended well, and those of earlier runs."""
        known = queue(self.name)
        if known is None or self.gathered:
            return
        with lock(self._lock()):
            live = {batch for (batch, _), job in known.items() if job.live}
            for batch in self._batches():
                facts = _facts(batch) or {"submitted": 0.0, "ids": []}
                files = [batch / _file(number) for number in range(len(facts["ids"]))]
                well = all(
                    sum(event["event"] == "done" for event in answers(path).values()) == len(ids)
                    for path, ids in zip(files, facts["ids"], strict=True)
                )
                if batch.name not in live and (well or facts["submitted"] < self._began):
                    remove_tree(batch)

    def _lock(self) -> Path:
        return self.store.root / "locks" / "slurm.lock"

    def _batches(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def _submit_gathered(self) -> None:
        """Submit the gathered tasks but those that are in a job already, of this run, another one or one that was killed."""
        if not self.gathered:
            return
        with lock(self._lock()):
            known = queue(self.name)
            if known is None:
                self._note("Slurm does not answer; trying again")
                return
            self._adopt(known)
            taken = {task.id for element in self.elements.values() for task in element.job.unanswered}
            groups: dict[tuple[Any, ...], list[Task]] = {}
            for task in self.gathered:
                if task.id not in taken:
                    request = request_for(task.cell, self.table, self.device)
                    groups.setdefault((request, task.cell.shown_kind, task.cell.name), []).append(task)
            self.gathered = []
            for (request, *_), tasks in groups.items():
                minutes = sum(task.cell.resources.minutes for task in tasks) / len(tasks)
                size = bundle_size(len(tasks), minutes, self.table)
                bundles = [tasks[first : first + size] for first in range(0, len(tasks), size)]
                for first in range(0, len(bundles), ELEMENTS):
                    self._submit(request, bundles[first : first + ELEMENTS])

    def _submit(self, request: Request, bundles: Sequence[Sequence[Task]]) -> None:
        batch = self.folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        submitted = time.time()
        elements = []
        for number, tasks in enumerate(bundles):
            job = JobFile.write(batch / _file(number), tasks, self.message)
            elements.append(Element(batch, number, job, request, submitted))
        facts = {
            "submitted": submitted,
            "request": asdict(request),
            "ids": [[task.id for task in tasks] for tasks in bundles],
            "labels": [tasks[0].name + f" and {len(tasks) - 1} more" * (len(tasks) > 1) for tasks in bundles],
            "logs": [str(self.store.log(tasks[0].cell)) for tasks in bundles],
        }
        write_json(batch / "batch.json", facts)
        _sbatch(self.name, batch, len(bundles), request, self.table)
        self.elements |= {element.id: element for element in elements}

    def _adopt(self, known: Mapping[tuple[str, int], JobState]) -> None:
        """Take over the jobs of other runs that still run or wait, so that none of their tasks is submitted again."""
        for batch in self._batches():
            facts = _facts(batch)
            if facts is None:
                continue
            recent = time.time() - facts["submitted"] < _SETTLE_SECONDS
            for number, ids in enumerate(facts["ids"]):
                job = known.get((batch.name, number))
                if (batch.name, number) in self.elements or not (job.live if job else recent):
                    continue
                cells = self.plan.cells
                tasks = [Task(cells[key], shard) if key in cells else None for key, shard in ids]
                file = JobFile(batch / _file(number), tasks)
                for place, event in answers(file.path).items():
                    if event["event"] != "done":  # it is tried again
                        file.ignore(place)
                self.elements[batch.name, number] = Element(
                    batch, number, file, Request(**facts["request"]), facts["submitted"]
                )
                if job:
                    self._note(f"{job.place} was submitted by an earlier run: waiting for it")

    def _heard(self, element: Element, said: Iterator[tuple[Task, Event]]) -> Iterator[tuple[Task, Event]]:
        for task, event in said:
            if event["event"] == "died":
                element.peak_mb = max(element.peak_mb, event.get("peak_mb", 0))
                if event.get("signal") == 9 and element.peak_mb > _NEAR * element.request.memory_mb:
                    event = out_of_memory(
                        "the job", element.request, element.peak_mb, str(element.log), _key(task.cell)
                    )
                else:
                    event = {**event, "why": f"{event['why']}; log {element.log}"}
            yield task, event

    def _look_at_queue(self) -> Iterator[tuple[Task, Event]]:
        """Yield what has become of tasks whose jobs have ended without an answer."""
        known, now = queue(self.name), time.time()
        if known is None:
            return
        for element in list(self.elements.values()):
            job = known.get(element.id)
            if job and job.live:
                element.gone_since = 0.0
                if job.held:
                    self._note(f"{job.place} waits until somebody acts; scontrol show job {job.id} tells more")
                continue
            element.gone_since = element.gone_since or now
            if now - max(element.gone_since, element.submitted) < min(_SETTLE_SECONDS, 2 * self.table.poll_seconds):
                continue
            facts, first = accounted(job.id) if job else {}, next(iter(element.job.unanswered), None)
            if first is not None:
                key = _key(first.cell)
                event = ended_event(job, facts, element.request, element.peak_mb, str(element.log), key)
                yield from element.job.lost(event)

    def _note(self, text: str) -> None:
        if text not in self.noted:
            self.noted.add(text)
            self.board.note(text)


class InJob:
    """What submitit runs in a job, and makes again when the job is requeued."""

    def __init__(self, folder: str, number: int, patience: float) -> None:
        self.folder, self.number, self.patience = folder, number, patience

    def __call__(self) -> None:
        """Work off the job file."""
        number = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", "?"))
        index = f"_{os.environ['SLURM_ARRAY_TASK_ID']}" if "SLURM_ARRAY_TASK_ID" in os.environ else ""
        node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        place = f"Slurm job {number}{index} on {node}"
        self._runner = Runner(Path(self.folder) / _file(self.number), place, self.patience)
        work(self._runner)
        if self._runner.pausing.is_set():  # by SIGTERM: Slurm requeues what it preempts only if it ends it itself
            time.sleep(_UNTIL_KILLED_SECONDS)

    def checkpoint(self) -> Any:
        """Pause at the next checkpoint, and return what goes on from there."""
        import submitit

        self._runner.pause()
        self._runner.finished.wait(self.patience + 5)
        return submitit.helpers.DelayedSubmission(InJob(self.folder, self.number, self.patience))


def _sbatch(name: str, batch: Path, count: int, request: Request, table: SlurmSettings) -> None:
    """Submit an array of ``count`` jobs.

    Raises:
        UserError: Slurm refuses it.
    """
    import submitit

    executor = submitit.SlurmExecutor(batch / "logs", max_num_timeout=table.requeues)
    optional = {field: getattr(request, field) for field in ("partition", "account", "qos", "constraint")}
    executor.update_parameters(
        **{field: value for field, value in optional.items() if value},
        **({"gpus_per_node": request.gpus} if request.gpus else {}),
        job_name=name,
        comment=batch.name,
        time=request.minutes,
        mem=f"{request.memory_mb}M",
        cpus_per_task=request.cpus,
        nodes=1,
        ntasks_per_node=1,
        setup=list(table.setup),
        array_parallelism=table.array_limit,
        signal_delay_s=table.pause_seconds,
        additional_parameters={"requeue": True},
        srun_args=[f"--cpus-per-task={request.cpus}"],  # srun does not take it from sbatch since Slurm 22.05
    )
    patience = max(table.pause_seconds - 20.0, table.pause_seconds / 2)
    try:
        with _outside_of_jobs():
            executor.submit_array([InJob(str(batch), number, patience) for number in range(count)])
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        remove_tree(batch)
        why = " ".join(str(error).split())[-500:]
        raise UserError(
            "Slurm refuses a job", why, "correct the table [slurm] of the profile, or --set slurm..."
        ) from error


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of a Slurm job, in which this process may run, from what it submits; but not where Slurm is."""
    import submitit

    place = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if place:
            os.environ["SLURM_CONF"] = place
        yield


def _facts(batch: Path) -> dict[str, Any] | None:
    """Return what was submitted as a batch; None if its submission had not begun."""
    try:
        found: dict[str, Any] = parse_json((batch / "batch.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _file(number: int) -> str:
    return f"{number:04}.json"


def _key(cell: Cell) -> str:
    return f'"{cell.shown_kind}/{cell.name}"' if cell.kind == "pretrain" else cell.shown_kind
