"""Fine-tuning on 1, 2 and 3 gloo processes, and a rank that dies or hangs: the table of docs/runs.md.

    python benchmarks/ranks.py FOLDER

Every run is that of the command line on the embedded world, started by torchrun as on GPUs, with the same global batch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SMALL = (
    "dataset.images_per_class=4", "dataset.chunk=4", "generators.lbgen.sampling_steps=2", "generators.lbgen.steps=4",
    "generators.lbgen.trained_steps=2", "generators.lbgen.epochs=8", "generators.lbgen.batch=12",
    "generators.lbgen.micro_batch=4", "generators.lbgen.fit_threads=1", "generators.lbgen.warmup_passes=1",
    "backbones.vit_pico.epochs=4", "backbones.vit_pico.warmup_epochs=1",
    "backbones.vit_pico.batch_size=12", "backbones.vit_pico.drop_path=0",
)  # fmt: skip
PATIENCE = 40.0


def command(store: Path, devices: int) -> list[str]:
    """Return the run on so many processes."""
    values = (*SMALL, f"generators.lbgen.fit_devices={devices}", f"backbones.vit_pico.devices={devices}")
    sets = [word for value in values for word in ("--set", value)]
    return [sys.executable, "-m", "harness", "run", "--generator", "lbgen", "--suite", "in-domain", "--backbone", "vit_pico",
            "--store", str(store), *sets]  # fmt: skip


def weights(store: Path) -> Path:
    """Return the file of weights that the fine-tune of a run has made."""
    return next(store.glob("fit/*/pytorch_lora_weights.safetensors"))


def losses(store: Path) -> list[float]:
    """Return the losses of the steps of the fine-tune."""
    lines = next(store.glob("fit/*/training-log.jsonl")).read_text().splitlines()
    return [each["total"] for each in map(json.loads, lines) if "total" in each]


def difference(one: Path, other: Path) -> float:
    """Return the norm of the difference of two files of weights, as a part of the norm of the first."""
    from safetensors.torch import load_file

    a, b = load_file(one), load_file(other)
    squares = [(float((b[key] - a[key]).double().square().sum()), float(a[key].double().square().sum())) for key in a]
    return (sum(square for square, _ in squares) / sum(whole for _, whole in squares)) ** 0.5


def compare(folder: Path) -> Iterator[str]:
    """Yield the rows of the table of differences."""
    for devices in (1, 2, 3):
        subprocess.run(command(folder / str(devices), devices), check=True, stdout=subprocess.DEVNULL)
    for devices in (2, 3):
        one, more = folder / "1", folder / str(devices)
        found = difference(weights(one), weights(more))
        loss = max(abs(b - a) / max(abs(a), 1e-9) for a, b in zip(losses(one), losses(more), strict=True))
        yield f"| {devices} | {found:.1e} | {loss:.1e} |"


def ranks_of(run: subprocess.Popen[str], module: str = "harness.run.worker --rank") -> list[int]:
    """Return the processes of the ranks of a run, by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            env = dict(part.split("=", 1) for part in (place / "environ").read_text().split("\0") if "=" in part)
        except OSError:
            continue
        if module in words and env.get("RANKS_OF") == str(os.getpid()):
            found[int(env["RANK"])] = int(place.name)
    return [found[rank] for rank in sorted(found)]


def disturb(folder: Path, number: signal.Signals) -> str:
    """Send a signal to rank 1 of 2 in its fine-tune after a checkpoint; return the row of the table."""
    store = folder / number.name
    env = os.environ | {"RANKS_OF": str(os.getpid()), "HARNESS_RANK_PATIENCE": str(PATIENCE)}
    with (folder / f"{number.name}.log").open("w") as log:
        run = subprocess.Popen(command(store, 2), stdout=subprocess.DEVNULL, stderr=log, env=env, text=True)
        while not list(store.glob("fit/*/scratch/lbgen/checkpoint.pt")):
            time.sleep(0.1)
        before = ranks_of(run)
        os.kill(before[1], number)
        began = time.monotonic()
        while set(before) & set(ranks_of(run)):
            time.sleep(0.1)
        ended = time.monotonic() - began
        run.wait()
    said = next(line for line in (folder / f"{number.name}.log").read_text().splitlines() if "its worker died" in line)
    first = json.loads(next(store.glob("fit/*/training-log.jsonl")).read_text().splitlines()[-1])["step"] + 1
    equal = weights(store).read_bytes() == weights(folder / "2").read_bytes()
    return f"| {number.name} | {ended:.1f} s | {said.partition('(')[2].rpartition(')')[0]} | {first} | {'yes' if equal else 'no'} |"


def main() -> None:
    """Print both tables."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for row in compare(folder):
        print(row, flush=True)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        print(disturb(folder, number), flush=True)


if __name__ == "__main__":
    main()
