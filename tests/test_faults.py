"""At least 200 injected faults in one run: nothing finished is lost, nothing broken is believed, and the board has the same bytes.

docs/faults.md lists them by fault and stage.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.results.rescore import verify
from tests.faultlab.inject import KINDS, STAGES, Fault
from tests.faultlab.lab import Ended, Lab, Operation, kind_of_file, spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks at /proc")
SIGNALS = {
    "SIGKILL worker": {0}, "SIGKILL run": {-9}, "SIGKILL group": {-9}, "SIGTERM worker": {0}, "SIGTERM run": {-15},
    "SIGINT group": {130}, "SIGHUP group": {-1}, "torn": {0, -25},
}  # fmt: skip
"""Signal and whom it meets -> how the run may end. A worker that is killed is replaced."""
ERRORS = {
    "memory": {0, 1},
    "full": {0, 1, 2},
    "full file": {0, 1, 2},
    "EROFS": {0, 1, 2},
    "gone": {0, 1, 2},
    "clock": {0},
}
"""Others -> how the run may end: 0 if it was not hindered, 1 if cells failed, 2 if the run could not begin or end."""
AT = ("write", "rename", "remove")
"""Operations at which faults happen. How often a folder is asked for depends on whether the one above it exists."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return the lab of all tests of this module, in memory where the system has such a folder."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=memory if memory.is_dir() else None))
    found = Lab(folder)
    try:
        yield found
        print(f"{found.counts.total()} injected faults: {dict(found.counts)}")
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def stated(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold what a test has injected against the table; tests may run in any order and in several processes."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab = request.getfixturevalue("lab")
    before = Counter(lab.counts)
    yield
    injected = lab.counts - before
    assert injected == Counter({name: table().get(name, 0) for name in injected})


def wrong(ended: Ended, codes: set[int]) -> list[str]:
    """Return what is wrong with how runs ended: not in time, with another code, or with a traceback."""
    problems = [f"ended with {code}" for code in ended.codes if code not in codes]
    for error in ended.errors:
        if "Traceback" in error or "probably a bug" in error:
            problems.append(error[-2000:])
    return problems


def moment(lab: Lab, what: str, stage: str) -> Operation:
    """Return when a fault meets a stage: another operation for every fault."""
    role = "worker" if what.endswith(" worker") else ""
    found = lab.changes(stage, role, ("write",) if what in ("torn", "full file") else AT)
    return random.Random(f"{what} {stage}").choice(found)


def strike(lab: Lab, what: str, stage: str, operation: Operation, codes: set[int]) -> list[str]:
    """Let a fault happen to a run, and return what does not hold after it and after the same command."""
    store = lab.fresh(stage)
    ended = lab.run(store, Fault(what, operation.moment))
    problems = wrong(ended, codes) + lab.settle(store, aside=what == "gone")
    if not ended.happened:
        problems.append("the fault did not happen")
    lab.counts[what, stage] += 1
    lab.drop(store)
    return [f"{what}, {stage}, {operation.moment}, {operation.path}: {problem}" for problem in problems]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", SIGNALS)
def test_signals_at_every_stage(lab: Lab, what: str) -> None:
    stages = STAGES[:-1] if what.endswith(" worker") else STAGES
    problems = []
    for stage in stages:
        problems += strike(lab, what, stage, moment(lab, what, stage), SIGNALS[what])
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", ERRORS)
def test_errors_at_every_stage(lab: Lab, what: str) -> None:
    problems = []
    for stage in STAGES:
        problems += strike(lab, what, stage, moment(lab, what, stage), ERRORS[what])
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("what", "operations"), [("ENOSPC", ("write", "rename")), ("EDQUOT", ("rename", "write"))])
def test_a_full_disk_at_every_writer(lab: Lab, what: str, operations: tuple[str, ...]) -> None:
    """The first file of each kind cannot be opened for writing (ENOSPC), or not get its name (EDQUOT)."""
    problems = []
    for stage in STAGES:
        writers: dict[str, Operation] = {}
        for name in operations:
            for each in lab.changes(stage, operations=(name,)):
                writers.setdefault(kind_of_file(each.path), each)
        for operation in writers.values():
            problems += strike(lab, what, stage, operation, {0, 1, 2})
    assert not problems, "\n".join(problems)


UNREAD = ("fit//log.txt", "synthesise//images.jsonl")
"""What nothing reads, so that a run does not see that it is damaged, and verify alone does."""


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def kinds_of_files(store: Path, below: str = "") -> dict[str, Path]:
    """Return one file of each kind that is not empty."""
    found: dict[str, Path] = {}
    for path in sorted((store / below).rglob("*")):
        if path.is_file() and path.stat().st_size:
            found.setdefault(kind_of_file(path.relative_to(store).as_posix()), path)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bit_flips_in_every_kind_of_file_of_a_finished_store(lab: Lab) -> None:
    """Everything that was made of the file is removed, so that it is read again."""
    problems = []
    for name in kinds_of_files(lab.calm):
        store = lab.fresh("board")
        shutil.rmtree(store)
        shutil.copytree(lab.calm, store)
        path = kinds_of_files(store)[name]
        stage = lab.stage(path, store)
        flip(path)
        if stage in KINDS:
            found = verify(store)
            if not any(path.relative_to(store).parts[1] in line for line in found):
                problems.append(f"{name}: not seen by verify: {found}")
            lab.remove(store, KINDS[KINDS.index(stage) + 1 :])
        found = [
            problem for problem in lab.settle(store, aside=True) if not (name in UNREAD and Path(name).name in problem)
        ]
        problems += [f"{name}: {problem}" for problem in found]
        lab.counts["bit flip", stage] += 1
        lab.drop(store)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bit_flips_in_every_kind_of_file_of_an_interrupted_run(lab: Lab) -> None:
    problems = []
    for stage in KINDS:
        seen: set[str] = set()
        for operation in spread(lab.changes(stage, "worker", ("rename",)), 3):
            partial = lab.fresh(stage)
            lab.run(partial, Fault("SIGKILL group", operation.moment))
            names = {
                name
                for name, path in kinds_of_files(partial).items()
                if lab.stage(path, partial) == stage and ".tmp" not in path.name
            }
            for name in sorted(names - seen):
                store = lab.fresh()
                shutil.copytree(partial, store)
                flip(kinds_of_files(store)[name])
                problems += [f"{stage} {name}: {problem}" for problem in lab.settle(store, aside=True)]
                lab.counts["bit flip, interrupted run", stage] += 1
                lab.drop(store)
            seen |= names
            lab.drop(partial)
    assert not problems, "\n".join(problems)


HALVES = ("first half", "second half", "no manifests", "manifests only", "last files cut", "no tar files")


def keeps(half: str, number: int, count: int, path: Path) -> bool:
    """Return whether a copy that broke off holds a file."""
    return {
        "first half": number < count // 2,
        "second half": number >= count // 2,
        "no manifests": path.name != "manifest.json",
        "manifests only": path.name == "manifest.json",
        "last files cut": True,
        "no tar files": path.suffix != ".tar",
    }[half]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_half_copied_store(lab: Lab) -> None:
    problems = []
    for half in HALVES:
        store = lab.fresh()
        shutil.copytree(lab.calm, store)
        files = sorted(path for path in store.rglob("*") if path.is_file())
        for number, path in enumerate(files):
            if not keeps(half, number, len(files), path):
                path.unlink()
            elif half == "last files cut" and number % 3 == 0:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        problems += [f"{half}: {problem}" for problem in lab.settle(store, aside=True)]
        lab.counts["half-copied store", "store"] += 1
        lab.drop(store)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", KINDS)
def test_two_identical_runs_at_once(lab: Lab, stage: str) -> None:
    """The first run stands still inside a cell until the second waits at its lock; every cell is done once."""
    store = lab.fresh(stage)
    operation = list(lab.changes(stage, "worker", ("rename",)))[-1]
    ended = lab.run(store, Fault("meet", operation.moment), record=True, argv=[])
    problems = wrong(ended, {0}) + lab.settle(store)
    sealed = Counter(
        line.split("\t")[4].rpartition("/")[0]
        for number in range(2)
        for line in (lab.folder / f"record-{number}").read_text().splitlines()
        if ".manifest.json." in line and "\trename\t" in line
    )
    assert ended.happened and not problems, "\n".join(problems)
    assert set(sealed.values()) == {1}, sealed
    lab.counts["two identical runs", stage] += 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", KINDS)
def test_two_overlapping_runs_at_once(lab: Lab, stage: str) -> None:
    """The second run wants another generator's cells, too."""
    both = ("--generator", "dust,grit")
    store = lab.fresh(stage)
    operation = lab.changes(stage, "worker", ("rename",))[0]
    ended = lab.run(store, Fault("meet", operation.moment), argv=both)
    problems = wrong(ended, {0}) + lab.settle(store, argv=both)
    assert ended.happened and not problems, "\n".join(problems)
    lab.counts["two overlapping runs", stage] += 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", KINDS)
def test_two_hosts_whose_locks_do_not_hold(lab: Lab, stage: str) -> None:
    """The second run does, from its beginning to its end, what the first one is doing."""
    store = lab.fresh(stage)
    found = list(lab.changes(stage, "worker", ("write", "rename")))
    operation = random.Random(stage).choice(found)
    ended = lab.run(store, Fault("pass", operation.moment), host="elsewhere", unseen=True)
    problems = wrong(ended, {0, 1}) + lab.settle(store, aside=True)
    assert ended.happened and not problems, "\n".join(problems)
    lab.counts["two hosts without common locks", stage] += 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_on_another_host_is_seen_although_its_locks_are_not(lab: Lab) -> None:
    store = lab.fresh("pretrain")
    operation = lab.changes("pretrain", "worker", ("rename",))[0]
    ended = lab.run(store, Fault("pass", operation.moment), host="elsewhere")
    assert ended.happened and ended.codes == [0, 2], ended
    assert "locks do not keep it apart from this machine" in ended.errors[1] and not lab.settle(store)
    lab.counts["two hosts, the first one seen", "pretrain"] += 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", KINDS)
def test_a_finished_cell_that_is_seen_late(lab: Lab, stage: str) -> None:
    """A machine that does not see the manifests of a stage does its cells again, and changes nothing by that."""
    store = lab.fresh()
    shutil.copytree(lab.calm, store)
    lab.remove(store, ("evaluate",) if stage != "evaluate" else ())
    operation = lab.changes(stage, "worker", ("rename",))[0]
    ended = lab.run(store, Fault("late", operation.moment))
    problems = wrong(ended, {0}) + lab.settle(store, aside=True)
    assert ended.happened and not problems, "\n".join(problems)
    lab.counts["finished work seen late", stage] += 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_file_is_made_by_exclusive_creation_which_nfs_may_lack(lab: Lab) -> None:
    assert not [each.path for each in lab.operations if each.exclusive]


ROW = re.compile(
    r"^\| (?P<fault>[^|]+) \|(?P<numbers>(?: *\d* *\|)+) (?P<outcome>[^|]+) \| `(?P<test>test_\w+)` \|$", re.M
)


def table() -> dict[tuple[str, str], int]:
    """Return (fault, stage) -> number of docs/faults.md, whose rows name tests of this module."""
    found = {}
    for row in ROW.finditer((Path(__file__).parents[1] / "docs" / "faults.md").read_text()):
        assert row["test"] in globals(), row["test"]
        for stage, number in zip(STAGES, row["numbers"].strip("|").split("|"), strict=True):
            found[row["fault"].strip(), stage] = int(number.strip() or 0)
    return found


def test_the_table_names_tests_that_exist_and_at_least_200_faults() -> None:
    assert sum(table().values()) >= 200
