"""Small finished stores, written as evaluate cells write them, with known flags per test item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.core.files import write_bytes, write_json, write_text
from harness.core.identity import content_key, file_sha256
from harness.stats.difference import Units, flag_units
from harness.stats.estimate import proportion
from harness.stats.units_file import pack
from harness.store.records import Check, Comparability, Metric, Record, Subject

Flags = Mapping[str, Sequence[bool]]
MakeStore = Callable[..., Path]


def flags(n: int, rate: float, seed: int) -> list[bool]:
    """Return n flags at exactly the rate, shuffled."""
    found = np.arange(n) < round(n * rate)
    np.random.default_rng(seed).shuffle(found)
    return found.tolist()


def make_record(suite: str, generator: str, right: Sequence[bool], seed: int = 0, **changes: object) -> Record:
    """Return a record of one share with its provenance."""
    order = {"in-domain": 100, "texture-bias": 700}.get(suite, 300)
    metric = Metric({"in-domain": "top1", "texture-bias": "TI"}.get(suite, suite), proportion(right),
                    better="lower" if suite == "texture-bias" else "higher")  # fmt: skip
    made = Record(
        suite, order, suite, Subject(generator, "resnet10", seed, seed, ("class_names",)), 0, (metric,),
        (Check("floor", True, 1.0, 0.5, "recognises anything"),), Comparability("toy", 1, {"d": "f"}, "c", "p", "r"),
        content_key([suite, generator, seed]), inputs={"checkpoint/copy/dataset": content_key([generator, seed])},
        code={"harness": "0", "commit": "abc", "dirty": "no"},
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def put(store: Path, record: Record, units: Sequence[Units]) -> Path:
    """Write a record with its units as a finished evaluation."""
    folder = store / "evaluate" / f"{record.suite}-{record.key[:16]}"
    write_bytes(folder / "rows.parquet", b"rows")
    write_bytes(folder / "units.npz", pack({"record": units}))
    write_text(folder / "record.json", record.to_json())
    seal(folder, record.key)
    return folder


def seal(folder: Path, key: str) -> None:
    """Write the manifest of whatever is in a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    files = {name: {"sha256": file_sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    content = content_key({name: entry["sha256"] for name, entry in files.items()})
    write_json(folder / "manifest.json", {"key": key, "files": files, "fingerprint": "", "content": content})


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Return a function that writes a store from generator to suite to one list of flags per seed."""

    def make(name: str, results: Mapping[str, Mapping[str, Sequence[Sequence[bool]]]], **changes: object) -> Path:
        for generator, suites in results.items():
            for suite, seeds in suites.items():
                for seed, right in enumerate(seeds):
                    record = make_record(suite, generator, right, seed, **changes)
                    names = [f"item {i:04d}" for i in range(len(right))]
                    put(tmp_path / name, record, [flag_units(record.metrics[0].name, names, right)])
        return tmp_path / name

    return make
