"""Full, read-only and failing disks: an error in three parts, no traceback, and nothing lost that was finished."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.core.disk import explain, lenient
from harness.core.errors import DiskFailed, ReadOnly
from harness.core.files import atomic_file, atomic_path, write_json, write_together
from harness.core.hashcache import HashCache
from tests.faults import faults
from tests.harness.conftest import Run

TOY = ("--generator", "noise", "--suite", "brightness", "--profile")


ROOT = Path(__file__).parents[2]
LIMITED = """
import resource, sys
from pathlib import Path
from harness.core.errors import DiskFailed
from tests.harness import test_disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    getattr(test_disk, sys.argv[1])(Path(sys.argv[2]))
except DiskFailed as error:
    print(error)
"""


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 100 kB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def three_parts(text: str) -> bool:
    """Return whether a text holds an error in three parts and no traceback."""
    return all(part in text for part in ("error: ", "  why: ", "  fix: ")) and "Traceback" not in text


def write_torch(path: Path) -> None:
    """Write a megabyte as torch does."""
    import torch

    with atomic_file(path) as stream:
        torch.save({"a": torch.rand(250_000)}, stream)


def write_numpy(path: Path) -> None:
    """Write a megabyte as numpy does."""
    import numpy as np

    with atomic_file(path) as stream:
        np.save(stream, np.random.default_rng(0).random(125_000))


def write_parquet(path: Path) -> None:
    """Write a megabyte as pyarrow does."""
    import numpy as np
    import pandas as pd

    with atomic_path(path) as temporary:
        pd.DataFrame({"a": np.random.default_rng(0).random(125_000)}).to_parquet(temporary)


def write_safetensors(path: Path) -> None:
    """Write a megabyte as safetensors does."""
    import torch
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({"a": torch.rand(250_000)}, temporary)


def write_picture(path: Path) -> None:
    """Write a picture of a megabyte."""
    import numpy as np
    from PIL import Image

    with atomic_path(path) as temporary:
        pixels = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(temporary, format="PNG")


@pytest.mark.parametrize("write", [write_torch, write_numpy, write_parquet, write_safetensors, write_picture])
def test_every_library_that_meets_a_full_disk_is_understood(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """In a process of its own: what a library writes beside the file is limited, too."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", LIMITED, write.__name__, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert re.match("error: the disk is full: no space left while writing .*file\n", done.stdout), done.stderr
    assert "finished work is kept" in done.stdout
    assert path.read_bytes() == b"old" and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a loss that is no number"), atomic_file(tmp_path / "a"):
        raise RuntimeError("a loss that is no number")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "b"):
        (tmp_path / "nothing").read_bytes()
    assert explain("x", ValueError("1 requested and 0 written")) is None


def test_the_file_that_fails_is_named_not_the_one_that_is_written(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly, match="/data/secret.jpg"), atomic_path(tmp_path / "b"):
        raise PermissionError(errno.EACCES, "denied", "/data/secret.jpg")


def test_of_several_files_none_is_replaced_before_all_are_written(tmp_path: Path, small_files: None) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_bytes(b"old")
    with pytest.raises(DiskFailed):
        write_together({paths[0]: b"new", paths[1]: b"x" * 200_000, paths[2]: b"new"})
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"old"}
    write_together(dict.fromkeys(paths, b"new"))
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"new"] * 3


def test_a_hash_that_cannot_be_kept_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskFailed("full", "", "")

    monkeypatch.setattr("harness.core.hashcache.write_json", full)
    cache = HashCache(tmp_path / "hashes.json")
    cache.put("file x", "state", "0" * 64)
    assert cache.get("file x", "state") == "0" * 64


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_messages_to_a_full_disk_are_lost_and_end_nothing() -> None:
    with open("/dev/full", "w") as full:
        stream = lenient(full.fileno())
        assert stream.write("a message\n") == 10
        stream.flush()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
@pytest.mark.parametrize(
    "command",
    [("leaderboard", "--format", "csv"), ("leaderboard", "--format", "html"), ("list",), ("compare", "lbgen", "sd15")],
    ids=" ".join,
)
def test_output_to_a_full_disk_is_an_error_in_three_parts(tmp_path: Path, command: tuple[str, ...]) -> None:
    store = ("--store", "leaderboard/baselines/micro") if command[0] == "compare" else ()
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "harness", *command, *store], stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=120)  # fmt: skip
    assert done.returncode == 2 and three_parts(done.stderr), done.stderr
    assert "the disk is full: no space left while writing standard output" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_full_disk_at_the_status_file_costs_the_status_alone(harness: Run, plugins: Path, tmp_path: Path) -> None:
    command = ("run", *TOY, str(plugins / "toy.toml"), "--store", "s")
    bad = faults(tmp_path / "hook", plugins, "ENOSPC:open:*status.json*")
    done = harness(*command, **bad)
    assert done.returncode == 1 and three_parts(done.stderr), done.stderr
    assert "status.json" in done.stderr and "noise" in done.stdout
    again = harness(*command)
    assert again.returncode == 0 and "nothing to do: all 2 cells are done" in again.stderr


SLOW = pytest.mark.slow
"""Places that fail as one of the others does."""


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("ENOSPC:open:*/logs/*", 0),  # lines of a log are lost, no result is
        ("EIO:rename:*.manifest.json.*", 1),
        ("ENOSPC:open:*leaderboard.md*", 2),
        pytest.param("ENOSPC:open:*/s/.README*", 2, marks=SLOW),
        pytest.param("EDQUOT:mkdir:*/s/synthesise/*", 1, marks=SLOW),
        pytest.param("ENOSPC:open:*.jsonl.*", 1, marks=SLOW),
        pytest.param("ENOSPC:open:*.tar.*", 1, marks=SLOW),
        pytest.param("ENOSPC:rename:*rows.parquet*", 1, marks=SLOW),
        pytest.param("ENOSPC:open:*record.json.*", 1, marks=SLOW),
        pytest.param("ENOSPC:open:*leaderboard.csv*", 2, marks=SLOW),
    ],
)
def test_a_disk_that_fails_at_any_file_loses_nothing(
    harness: Run, plugins: Path, tmp_path: Path, rule: str, code: int
) -> None:
    command = ("run", *TOY, str(plugins / "toy.toml"), "--store", "s")
    done = harness(*command, **faults(tmp_path / "hook", plugins, rule))
    assert done.returncode == code, done.stderr
    if code:
        words = ("what: ", "why: ", "fix: ") if code == 1 else ("error: ", "why: ", "fix: ")
        assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr, done.stderr
        assert "probably a bug" not in done.stderr
    whole = [path for path in (tmp_path / "s").rglob("*.tar") if path.with_suffix(".jsonl").exists() or code != 1]
    kept = {path: path.stat().st_mtime_ns for path in whole}
    again = harness(*command)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list((tmp_path / "s").rglob("*.set-aside-*"))


@pytest.mark.parametrize("option", ["--markdown", "--junit"])
def test_a_gate_whose_report_does_not_fit_prints_it_and_says_so(
    harness: Run, plugins: Path, tmp_path: Path, option: str
) -> None:
    bad = faults(tmp_path / "hook", plugins, "ENOSPC:open:*report*")
    micro = str(Path(__file__).parents[2] / "leaderboard" / "baselines" / "micro")
    done = harness("gate", micro, "--baseline", "micro", option, "report", **bad)
    assert done.returncode == 2 and three_parts(done.stderr) and "Baseline:" in done.stdout


def test_a_baseline_outlives_a_full_disk(harness: Run, plugins: Path, tmp_path: Path) -> None:
    micro = str(Path(__file__).parents[2] / "leaderboard" / "baselines" / "micro")
    update = ("gate", micro, "--baseline", "base", "--update", "--reason", "why")
    assert harness(*update).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    changed = (*update[:-1], "another why", "--metrics", "texture-bias TI")
    for name in ("baseline.json", "units.npz", "records.jsonl.gz"):
        done = harness(*changed, **faults(tmp_path / "hook", plugins, f"ENOSPC:open:*{name}*"))
        assert done.returncode == 2 and three_parts(done.stderr), done.stderr
        assert {path: path.read_bytes() for path in (tmp_path / "base").iterdir()} == before


def test_a_finished_run_in_a_read_only_store_has_nothing_to_do(harness: Run, plugins: Path, tmp_path: Path) -> None:
    command = ("run", *TOY, str(plugins / "toy.toml"), "--store", "s")
    first = harness(*command)
    assert first.returncode == 0, first.stderr
    rules = [f"EROFS:{event}:*/s/*" for event in ("open", "rename", "mkdir")]
    again = harness(*command, **faults(tmp_path / "hook", plugins, *rules))
    assert again.returncode == 0 and "nothing to do: all 2 cells are done" in again.stderr, again.stderr
    assert again.stdout == first.stdout and "the leaderboard's files stay as they were" in again.stderr
    more = harness(*command, "--set", "generators.noise.grain=2", **faults(tmp_path / "hook", plugins, *rules))
    assert more.returncode == 2 and three_parts(more.stderr) and "cannot write to the store" in more.stderr


def test_json_is_written_or_explained(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(DiskFailed):
        write_json(tmp_path / "x.json", ["x" * 200_000])
    assert not os.listdir(tmp_path)
