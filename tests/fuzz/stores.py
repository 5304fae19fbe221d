"""Readers of what runs leave behind: records, manifests, baselines, shards, states; and of profiles."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.bench import Reader, put

_SHIPPED = Path(__file__).parents[2] / "leaderboard" / "baselines" / "micro"


def _profile(folder: Path) -> Path:
    text = (Path(__file__).parents[2] / "harness" / "profiles" / "micro.toml").read_text(encoding="utf-8")
    return put(folder, "own.toml", text)


def _read_profile(path: Path) -> object:
    from harness.plan.profile import load_profile

    return load_profile(str(path))


def _override(folder: Path) -> Path:
    return put(folder, "set.txt", 'generators."folder:v1.0".clip=[1, {a = "x"}]')


def _read_override(path: Path) -> object:
    from harness.plan.profile import load_profile

    return load_profile("micro", [path.read_bytes().decode("utf-8", "surrogateescape")])


def _record() -> Any:
    from tests.leaderboard.conftest import flags, make_record

    return make_record("in-domain", "real", flags(20, 0.5, 0))


def _records(folder: Path) -> Path:
    lines = [json.dumps(json.loads(_record().to_json())) for _ in range(2)]
    return put(folder, "records.jsonl", "\n".join(lines) + "\n")


def _read_records(path: Path) -> object:
    from leaderboard.exchange.submission import problems
    from leaderboard.sources import from_lines

    problems(path, ["in-domain"], [])
    return _board(from_lines(path))


def _board(entries: Any) -> object:
    """Turn entries into every form of a board: a value that a record may hold must not break one."""
    from leaderboard.sources import merge

    return merge(entries)


def _evaluation(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from harness.core.files import write_json
        from harness.core.identity import content_key
        from harness.core.seals import with_seal
        from harness.stats.difference import flag_units
        from tests.leaderboard.conftest import flags, seal
        from tests.leaderboard.conftest import put as put_record

        spec = {"kind": "evaluate", "inputs": {}, "params": {}, "code": ""}
        key, right = content_key(spec), flags(20, 0.5, 0)
        record = _record_with(key)
        place = put_record(folder, record, [flag_units("top1", [f"i{i}" for i in range(20)], right)])
        place = place.rename(place.with_name(f"in-domain-{key[:16]}"))
        seal(place, key)
        manifest = json.loads((place / "manifest.json").read_text())
        more = {
            "spec": spec,
            "wall_seconds": 1.0,
            "cpu_seconds": 1.0,
            "shard_costs": {"a": [1.0, 2.0]},
            "provenance": {"device": "cpu"},
        }
        write_json(place / "manifest.json", with_seal({**manifest, **more}))
        return place / name

    return make


def _record_with(key: str) -> Any:
    from dataclasses import replace

    return replace(_record(), key=key)


def _read_store(path: Path) -> object:
    from harness.core.cost import read_cost
    from harness.core.errors import UserError
    from harness.store.artifacts import Artifact, read_manifest
    from leaderboard.gallery import Gallery
    from leaderboard.sources import from_store

    root = path.parents[2]
    Gallery([root]).cost(path.parent.name.rpartition("-")[2])
    try:
        manifest = read_manifest(path.parent)
        if manifest is not None:
            Artifact(path.parent, manifest).verify()
            read_cost(manifest)
    except UserError:
        pass
    return from_store(root)


def _reseal(content: bytes) -> bytes:
    """Make seal, key and hashes of a manifest fit what it says."""
    from harness.core.identity import content_key
    from harness.core.seals import with_seal

    manifest = json.loads(content)
    manifest["key"] = content_key(manifest["spec"])
    manifest["content"] = content_key({name: entry["sha256"] for name, entry in manifest["files"].items()})
    return json.dumps(with_seal(manifest)).encode()


def _list(path: Path) -> None:
    """Make the manifest of an evaluation fit a file beside it."""
    place, content = path.parent / "manifest.json", path.read_bytes()
    manifest = json.loads(place.read_text())
    manifest["files"][path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    place.write_bytes(_reseal(json.dumps(manifest).encode()))


def _units(folder: Path) -> Path:
    from harness.stats.difference import flag_units
    from harness.stats.units_file import pack

    return put(folder, "units.npz", pack({"record": [flag_units("top1", ["a", "b", "c"], [True, False, True])]}))


def _read_units(path: Path) -> object:
    from harness.stats.units_file import unpack

    return unpack(path.read_bytes(), str(path))


def _baseline(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        head = json.loads((_SHIPPED / "baseline.json").read_text())
        lines = gzip.decompress((_SHIPPED / "records.jsonl.gz").read_bytes()).splitlines()[:1]
        from harness.stats.units_file import pack

        contents = {"records.jsonl.gz": gzip.compress(lines[0] + b"\n", mtime=0), "units.npz": pack({})}
        for each, content in contents.items():
            put(folder, each, content)
        head["files"] = {each: hashlib.sha256(content).hexdigest() for each, content in contents.items()}
        put(folder, "baseline.json", _sealed_head(json.dumps(head).encode()))
        return folder / name

    return make


def _sealed_head(content: bytes) -> bytes:
    from leaderboard.sources import SEAL, seal_of

    head = json.loads(content)
    return json.dumps({**head, SEAL: seal_of(head)}).encode()


def _read_baseline(path: Path) -> object:
    from leaderboard.sources import from_baseline

    return from_baseline(path.parent)


def _vouch(path: Path) -> None:
    """Make the head of a baseline fit a file beside it."""
    head = json.loads((path.parent / "baseline.json").read_text())
    head["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "baseline.json").write_bytes(_sealed_head(json.dumps(head).encode()))


def _status(folder: Path) -> Path:
    cell = {
        "kind": "evaluate",
        "label": "real in-domain",
        "state": "failed",
        "reason": "x",
        "log": "a.log",
        "seconds": 1.0,
        "cpu_seconds": 1.0,
    }
    task = {
        "task": "evaluate real",
        "pid": 5,
        "place": "",
        "since": 1.7e9,
        "done": 1,
        "total": 3,
        "note": "",
        "seconds_left": 3.0,
    }
    facts = {"schema": 2, "state": "running", "host": "elsewhere", "pid": 1, "process_start": 5, "updated": 4e9, "started": 1.7e9,
             "seconds": 5.0, "executor": "", "seconds_left": 3.0, "total": 3, "done": 1, "failed": 1, "running": [task],
             "kinds": {"evaluate": {"done": 1, "total": 3, "failed": 1}}, "cells": {"a": cell}}  # fmt: skip
    return put(folder, "status.json", json.dumps(facts))


def _read_status(path: Path) -> object:
    import contextlib
    import io

    from harness.cli.status import show_status

    with contextlib.redirect_stdout(io.StringIO()):
        show_status(path.parent, True)
        return show_status(path.parent, False)


def _shard(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from harness.images.shards import ImageRow, rows_bytes
        from tests.fuzz.data import picture
        from tests.generators.test_imports import write_tar

        image, names = picture("PNG"), [f"n01440764/n01440764_{i:05d}.png" for i in range(2)]
        write_tar(folder / "shard.tar", dict.fromkeys(names, image))
        sha1 = hashlib.sha1(image).hexdigest()
        put(
            folder,
            "images.jsonl",
            rows_bytes(ImageRow(each, 0, "n01440764", i, "x", 1, sha1, len(image)) for i, each in enumerate(names)),
        )
        return folder / name

    return make


def _read_shard(path: Path) -> object:
    from harness.images.shards import ShardReader, read_rows, verify_shard

    rows = read_rows(path.parent / "images.jsonl")
    shard = ShardReader(path.parent / "shard.tar")
    for name in shard.names:
        shard.pixels(name)
    return verify_shard(path.parent / "shard.tar", rows)


def _cost(folder: Path) -> Path:
    return put(folder, "costs/a.json", json.dumps([1.0, 2.0, {"a.tar": "00"}]))


def _read_cost(path: Path) -> object:
    from harness.core.cost import manifest_fields, read_shard_cost

    manifest_fields(path.parents[1], ["a"], read_shard_cost(path.parents[1], "b")[0] or _no_cost())
    return read_shard_cost(path.parents[1], "a")


def _no_cost() -> Any:
    from harness.core.cost import Cost

    return Cost(0.0, 0.0)


def _copy(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import numpy as np

        folder.mkdir(exist_ok=True)
        np.save(folder / "images.npy", np.zeros((3, 4, 4, 3), np.uint8))
        np.save(folder / "labels.npy", np.array([0, 0, 1]))
        put(folder, "classes.json", json.dumps(["a", "b"]))
        put(folder, "copy.json", json.dumps({"n": 3, "size": 4}))
        return folder / name

    return make


def _read_copy(path: Path) -> object:
    from harness.images.copy import TrainingCopy

    return TrainingCopy.open(path.parent)


def _log(folder: Path) -> Path:
    put(folder, "pretrain/real-0123456789abcdef/manifest.json", "{}")
    return put(
        folder,
        "pretrain/real-0123456789abcdef/log.jsonl",
        "".join(json.dumps({"epoch": i, "loss": 1.0 / (i + 1)}) + "\n" for i in range(3)),
    )


def _read_log(path: Path) -> object:
    from leaderboard.gallery import Gallery

    return Gallery([path.parents[2]]).loss_curve("0123456789abcdef")


def _grid(name: str) -> Callable[[Path], Path]:
    return lambda folder: _copy(name)(put(folder, "copy/real-0123456789abcdef/manifest.json", "{}").parent)


def _read_grid(path: Path) -> object:
    from leaderboard.gallery import Gallery

    return Gallery([path.parents[2]]).sample_grid("0123456789abcdef")


def _hashes(folder: Path) -> Path:
    from harness.core.hashcache import _seal, machine

    table = {"a": [[1, 2, 3], "0" * 64]}
    return put(folder, "hashes.json", json.dumps({"machine": machine(), "hashes": table, "seal": _seal(table)}))


def _seal_hashes(content: bytes) -> bytes:
    from harness.core.hashcache import _seal

    kept = json.loads(content)
    return json.dumps({**kept, "seal": _seal(kept["hashes"])}).encode()


def _read_hashes(path: Path) -> object:
    from harness.core.hashcache import _read

    return _read(path)


def _events(folder: Path) -> Path:
    put(folder, "job.json", json.dumps({"messages": [], "tasks": []}))
    return put(folder, "job.events", "".join(json.dumps({"task": i, "event": "done"}) + "\n" for i in range(3)))


def _read_events(path: Path) -> object:
    from harness.run.remote import answers

    return answers(path.with_suffix(".json"))


def readers() -> Iterator[Reader]:
    """Yield the readers of stores and of profiles."""
    yield Reader("profile", _profile, _read_profile, "text")
    yield Reader("--set", _override, _read_override, "text")
    yield Reader("records, one a line", _records, _read_records, "lines")
    yield Reader("evaluation: manifest.json", _evaluation("manifest.json"), _read_store, "json", mend=_reseal)
    for name, form in (("record.json", "json"), ("units.npz", "bytes")):
        yield Reader(
            f"evaluation: {name}",
            _evaluation(name),
            _read_store,
            form,
            settle=_list,
        )
    yield Reader("units", _units, _read_units)
    yield Reader("baseline.json", _baseline("baseline.json"), _read_baseline, "json", mend=_sealed_head)
    for name in ("records.jsonl.gz", "units.npz"):
        yield Reader(f"baseline: {name}", _baseline(name), _read_baseline, settle=_vouch)
    yield Reader("status.json", _status, _read_status, "json")
    yield Reader("images.jsonl", _shard("images.jsonl"), _read_shard, "lines")
    yield Reader("shard", _shard("shard.tar"), _read_shard)
    yield Reader("cost of a shard", _cost, _read_cost, "json")
    for name in ("copy.json", "classes.json"):
        yield Reader(f"training copy: {name}", _copy(name), _read_copy, "json")
    yield Reader("training copy: labels.npy", _copy("labels.npy"), _read_copy)
    yield Reader("training log", _log, _read_log, "lines")
    for name in ("images.npy", "labels.npy"):
        yield Reader(f"gallery: {name}", _grid(name), _read_grid)
    yield Reader("hashes.json", _hashes, _read_hashes, "json", mend=_seal_hashes)
    yield Reader("events of a job", _events, _read_events, "lines")
