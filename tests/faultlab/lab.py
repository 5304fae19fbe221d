"""The lab: a calm run, its operations, faults on copies of its store, and what must hold after each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.results.rescore import verify
from tests.faultlab.inject import KINDS, Fault, Moment, stage_of
from tests.faultlab.toy import install

PATIENCE = 60.0
COMMAND = ("run", "--generator", "dust", "--suite", "brightness,shade", "--backbone", "resnet10", "--slots", "1",
           "--device", "cpu")  # fmt: skip
_UNIQUE = re.compile(
    r"(?:[a-z][\w-]*-)?[0-9a-f]{16}(?:[ab]_\d{5}_\d{5})?|[ab]_\d{5}_\d{5}|[.][0-9a-z]+[.]tmp$|(?<=check)[.]\d+"
)


def kind_of_file(path: str) -> str:
    """Return a path without what tells files of one kind apart: keys, numbers, and the temporary name."""
    return _UNIQUE.sub("", path).replace("/.", "/").lstrip(".")


@dataclass(frozen=True)
class Operation:
    """One operation of the calm run."""

    moment: Moment
    path: str
    exclusive: bool = False


@dataclass
class Finding:
    """What did not hold after a fault."""

    what: str
    problems: list[str] = field(default_factory=list)


@dataclass
class Ended:
    """How runs ended: exit codes (None: had to be killed), their standard errors, and whether the fault happened."""

    codes: list[int | None]
    errors: list[str]
    happened: bool


class Lab:
    """A folder with plugins, the store of a calm run, and a server that forks runs.

    Args:
        folder: An empty folder, in memory if possible.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.calm, self.number = folder, folder / "calm", 0
        self.counts: Counter[tuple[str, str]] = Counter()
        self.profile = install(folder / "plugins")
        path = os.pathsep.join(filter(None, (str(folder / "plugins"), os.environ.get("PYTHONPATH"))))
        env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HARNESS_CACHE": str(folder / "cache")}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.faultlab.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert self.server.stdout is not None
        assert json.loads(self.server.stdout.readline()) == "ready"
        ended = self.run(self.calm, record=True)
        assert ended.codes == [0], ended.errors
        lines = [line.split("\t") for line in (folder / "record-0").read_text().splitlines()]
        self.imports = [line[1] for line in lines if line[0] == "import" and not line[1].startswith("triton")]
        self.operations = [
            Operation(Moment(line[0], line[1], line[2], int(line[3])), line[4], line[5] == "1")
            for line in lines
            if line[0] != "import"
        ]
        self.boards = {(): (self.calm / "leaderboard.csv").read_bytes()}
        self.contents = contents(self.calm)

    def close(self) -> None:
        """End the server."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()

    def run(
        self, store: Path, fault: Fault | None = None, record: bool = False, more: Sequence[str] = (), **second: Any
    ) -> Ended:
        """Run the command, and at the same time, if asked, a second one.

        Args:
            store: The store of both.
            fault: What happens to the first one.
            record: Whether their operations are written down.
            more: Arguments of the first one.
            second: Of the second one ``argv`` (more arguments), ``host`` and ``unseen``; see ``be_host``.
        """
        asked = []
        for number in range(2 if second else 1):
            one = {
                "argv": [*COMMAND, "--profile", str(self.profile), "--store", str(store), *more],
                "cwd": str(self.folder),
                "out": str(self.folder / f"out-{number}"),
                "store": str(store),
            }
            if record:
                one["record"] = str(self.folder / f"record-{number}")
                Path(one["record"]).unlink(missing_ok=True)
            asked.append(one)
        if fault is not None:
            m = fault.moment
            asked[0] |= {"what": fault.what, "moment": [m.role, m.stage, m.operation, m.number]}
        if second:
            asked[1]["argv"] += second.get("argv", [])
            asked[1] |= {"host": second.get("host", ""), "unseen": second.get("unseen", False)}
        request = {"runs": asked, "patience": PATIENCE, "imports": getattr(self, "imports", [])}
        self.imports: list[str] = []
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        answer = json.loads(self.server.stdout.readline())
        errors = [(self.folder / f"out-{number}.2").read_text() for number in range(len(asked))]
        return Ended(answer["codes"], errors, answer["happened"])

    def fresh(self, until: str = "") -> Path:
        """Return a new store: empty, or as the calm run had left it when it came to a stage (``board``: to its end)."""
        self.number += 1
        store = self.folder / f"store-{self.number}"
        if until and until not in ("store", "fit"):
            shutil.copytree(self.calm, store, copy_function=shutil.copy2)
            self.remove(store, KINDS[KINDS.index(until) :] if until in KINDS else ("evaluate",))
        return store

    def stage(self, path: Path, store: Path) -> str:
        """Return the stage of a file of a store."""
        return stage_of(path.relative_to(store).as_posix())

    def remove(self, store: Path, stages: Sequence[str]) -> None:
        """Remove the artifacts of some stages."""
        for folder in list(store.glob("*/*-*")):
            if folder.is_dir() and self.stage(folder, store) in stages:
                shutil.rmtree(folder)

    def contents_of(self, store: Path) -> dict[str, str]:
        """Return the hash of the content of every finished artifact."""
        return contents(store)

    def changes(
        self, stage: str, role: str = "", operations: Sequence[str] = ("write", "rename", "mkdir", "remove")
    ) -> list[Operation]:
        """Return the calm run's changes of files of a stage, in their order."""
        return [
            each
            for each in self.operations
            if each.moment.stage == stage and each.moment.operation in operations and role in ("", each.moment.role)
        ]

    def settle(self, store: Path, aside: bool = False, argv: Sequence[str] = ()) -> list[str]:
        """Run the same command without a fault, and return what does not hold then.

        Args:
            store: The store after a fault.
            aside: Whether artifacts may have been moved aside: something was damaged.
            argv: More arguments of the command.
        """
        before = finished(store)
        ended = self.run(store, more=argv)
        problems = (
            [f"the same command ends with {ended.codes[0]}: {ended.errors[0][-600:]}"] if ended.codes != [0] else []
        )
        if not problems:
            problems += self.check(store, self.board_of(argv))
        if not aside:
            after = finished(store)
            problems += [f"{path} was done and was done again" for path in before if after.get(path) != before[path]]
            problems += [f"{path} was moved aside" for path in store.rglob("*.set-aside-*")]
        problems += [f"{path} stays" for path in store.rglob(".*.tmp") if ".set-aside-" not in str(path)]
        return problems

    def board_of(self, argv: Sequence[str]) -> bytes:
        """Return the bytes of the board that a calm run with more arguments leaves."""
        if tuple(argv) not in self.boards:
            store = self.fresh()
            ended = self.run(store, more=argv)
            assert ended.codes == [0], ended.errors
            self.boards[tuple(argv)] = (store / "leaderboard.csv").read_bytes()
        return self.boards[tuple(argv)]

    def check(self, store: Path, board: bytes) -> list[str]:
        """Return what a store holds that the calm run's does not: another board, other contents, anything broken."""
        problems = list(verify(store))
        if (store / "leaderboard.csv").read_bytes() != board:
            problems.append("leaderboard.csv has other bytes")
        found = contents(store)
        problems += [
            f"{name} has other content" for name, value in self.contents.items() if found.get(name, value) != value
        ]
        return problems  # what no measurement needs any more may be missing

    def drop(self, store: Path) -> None:
        """Remove a store."""
        shutil.rmtree(store, ignore_errors=True)


def contents(store: Path) -> dict[str, str]:
    """Return folder -> hash of the content of every finished artifact, without those that were moved aside.

    Of an evaluation, of its rows and units: its record also names what it was made of, if that is there.
    """
    found = {}
    for path in sorted(store.glob("*/*/manifest.json")):
        if ".set-aside-" not in str(path):
            manifest = json.loads(path.read_text())
            measured = [manifest["files"].get(name, {}).get("sha256") for name in ("rows.parquet", "units.npz")]
            found[str(path.parent.relative_to(store))] = (
                manifest["content"] if measured == [None, None] else str(measured)
            )
    return found


def finished(store: Path) -> dict[str, tuple[int, int]]:
    """Return path -> (inode, time) of what is finished: files of sealed artifacts, and shards whose list is written."""
    found = [
        path for manifest in store.glob("*/*/manifest.json") for path in manifest.parent.rglob("*") if path.is_file()
    ]
    found += [
        path.with_suffix(".tar")
        for path in store.glob("synthesise/*/shards/*.jsonl")
        if path.with_suffix(".tar").is_file()
    ]
    return {str(path.relative_to(store)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def spread(found: Sequence[Operation], number: int) -> Iterator[Operation]:
    """Return some operations spread evenly over all."""
    for index in range(min(number, len(found))):
        yield found[(2 * index + 1) * len(found) // (2 * number)]
