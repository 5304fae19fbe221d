"""No loader worker outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from suites.perception.bridge import missing_packages

PROGRAM = """
import sys
import torch
from torch.utils.data import DataLoader, Dataset

class Large(Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        return torch.zeros(300_000).numpy().tobytes()  # larger than a pipe: the workers block on it

if __name__ == "__main__":
    from suites.perception.loading import start_loader
    loader = DataLoader(Large(), batch_size=1, num_workers=3, worker_init_fn=start_loader, collate_fn=list)
    stream = iter(loader)
    next(stream)
    print(*(worker.pid for worker in stream._workers), flush=True)
    sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the request to the kernel exists on Linux only")
def test_loading_workers_end_with_a_killed_run(tmp_path: Path) -> None:
    """After SIGKILL of the loading process its workers, blocked on a full pipe, are gone at once."""
    if missing_packages():
        pytest.skip(f"perception packages are not installed: {', '.join(missing_packages())}")
    program = tmp_path / "load.py"
    program.write_text(PROGRAM)
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen([sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": root, "PYTHONWARNINGS": "ignore"})  # fmt: skip
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 3 and all(map(alive, pids))
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 3
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
