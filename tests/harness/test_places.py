"""What travels with a result names files, and not the folders, users and machines they come from."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.core.places import without_places
from harness.run import facts
from tests.harness.conftest import Run

ROOT = "/home/alice/data/dtd"
SENTENCES = [
    (f"{ROOT}/labels/train1.txt is damaged", "labels/train1.txt is damaged"),
    (f"{ROOT} holds 3 images", "dtd holds 3 images"),
    ("config.json of /home/alice/models/net says 3", "config.json of net says 3"),
    ("labels in '/scratch/alice/x y/a.txt', and ~/b/c.txt", "labels in 'x y/a.txt', and c.txt"),
    ("50/60 images; see https://example.org/a/b and 3 km/h", "50/60 images; see https://example.org/a/b and 3 km/h"),
    (r"C:\Users\alice\net.pth is truncated", "net.pth is truncated"),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_absolute_paths_lose_their_folders(text: str, expected: str) -> None:
    assert without_places(text, {ROOT: "dtd"}) == expected


def test_findings_of_a_record_name_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SimpleNamespace(root=ROOT, data_hash="", card={})
    ctx: Any = SimpleNamespace(
        cell=SimpleNamespace(data=("dtd",)), sources={"dtd": source}, data=lambda name: Path(ROOT), out=Path("/s/evaluate/x"),
        params={"warnings": ["mean of /home/alice/net/config.json differs"]},
    )  # fmt: skip
    suite: Any = SimpleNamespace(data_inspectors={"dtd": "m:f"}, precision="")
    monkeypatch.setattr(facts, "_contradictions", lambda *_: (f"{ROOT}/labels/a.txt differs",))
    monkeypatch.setattr(facts, "_LOOKED_AT", {})
    found = facts.measured_with(ctx, suite, {})
    assert found.notes == ("mean of config.json differs",) and found.findings == ("dtd: labels/a.txt differs",)


@pytest.mark.slow
def test_what_a_run_publishes_tells_nothing_of_its_user(harness: Run, plugins: Path, tmp_path: Path) -> None:
    home = tmp_path / "alice"
    for number in range(16):
        path = home / "images" / "train" / f"c{number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    user = {"HOME": str(home), "USER": "alice", "LOGNAME": "alice", "HF_TOKEN": "hf_secret"}
    generators = f"noise,folder:{home / 'images'}"
    options = (
        "--suite",
        "brightness",
        "--profile",
        str(plugins / "toy.toml"),
        "--set",
        "generators.folder.class_map=wnid",
    )
    done = harness("run", "--generator", generators, *options, "--store", "alice/s", **user)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    out.mkdir()
    for style in ("csv", "md", "latex", "html", "long", "json"):
        assert (
            harness("leaderboard", "alice/s", "--format", style, "--output", f"out/board.{style}", **user).returncode
            == 0
        )
    if find_spec("mlcroissant"):
        done = harness("dataset", "card", "--store", "alice/s", "--output", "out/card", **user)
        assert done.returncode == 0, done.stderr
    travels = [
        *out.rglob("*"),
        *(home / "s" / "evaluate").glob("*/record.json"),
        *(home / "s" / "evaluate").glob("*/units.npz"),
    ]
    travels = [path for path in travels if path.is_file()]
    assert len(travels) > 8
    for path in travels:
        for word in (
            "alice",
            "hf_secret",
            str(tmp_path),
            socket.gethostname() if len(socket.gethostname()) > 4 else "hf_secret",
        ):
            assert word.encode() not in path.read_bytes(), (path.name, word)
    for path in (home / "s").rglob("*"):  # nothing that a run leaves behind holds a secret of its environment
        assert not path.is_file() or b"hf_secret" not in path.read_bytes(), path
