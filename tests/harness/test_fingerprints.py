"""Fingerprints of data sets and model files, the walk they share with readers, and the hashes kept beside a store."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.core import fingerprints, hashcache
from harness.core.errors import DataMissing, UserError
from harness.core.fingerprints import COSTLY, Fingerprints
from harness.core.hashcache import HashCache
from harness.core.identity import file_sha256
from harness.core.tree import files, folders, walk
from harness.plan.profile import load_profile
from harness.store.data import DONE, DataSource, find_data, materialise


def write(root: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def data(root: Path) -> str:
    return Fingerprints.beside(None).data(root)


def names(root: Path) -> list[str]:
    return [name for name, _ in walk(root)]


def test_the_walk_has_one_order_and_passes_over_litter(tmp_path: Path) -> None:
    found = ("b/2.png", "a/x/1.png", "a.txt", "a/1.png", "b/10.png")
    litter = (
        ".DS_Store",
        "a/._1.png",
        "Thumbs.db",
        "__MACOSX/a/1.png",
        "a/__pycache__/x.pyc",
        "b/.ipynb_checkpoints/2.png",
    )
    write(tmp_path, dict.fromkeys((*found, *litter), b"x"))
    os.mkfifo(tmp_path / "pipe.png")
    assert names(tmp_path) == ["a.txt", "a/1.png", "a/x/1.png", "b/10.png", "b/2.png"]
    assert (folders(tmp_path), files(tmp_path), files(tmp_path / "a", {".txt"})) == (["a", "b"], ["a.txt"], [])


def test_the_walk_follows_links_and_ends_at_loops(tmp_path: Path) -> None:
    write(tmp_path / "far", {"pictures/1.png": b"1", "2.png": b"2"})
    root = tmp_path / "root"
    root.mkdir()
    for name, target in (("left", "far/pictures"), ("right", "far/pictures"), ("2.png", "far/2.png"), ("self", "root")):
        (root / name).symlink_to(tmp_path / target)
    (tmp_path / "far" / "pictures" / "back").symlink_to(root)
    assert names(root) == ["2.png", "left/1.png", "right/1.png"]
    assert names(root / "left") == ["1.png", "back/2.png"], "the same pictures by another way in, each link once"
    (root / "lost.png").symlink_to("nowhere.png")
    with pytest.raises(DataMissing, match=r"lost\.png leads nowhere.*\n.*nowhere\.png"):
        names(root)


def test_equal_sizes_and_other_pictures_are_another_data_set(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.jpg": b"one", "a/2.jpg": b"two", "labels.txt": b"1 2", "pack.tar": b"t" * 100})
    before = data(tmp_path)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    assert data(tmp_path) == before, "times are no part of it"
    (tmp_path / "a" / "1.jpg").rename(tmp_path / "a" / "3.jpg")
    (tmp_path / "a" / "2.jpg").rename(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "3.jpg").rename(tmp_path / "a" / "2.jpg")
    swapped = data(tmp_path)
    (tmp_path / "pack.tar").write_bytes(b"t" * 50 + b"u" + b"t" * 49)
    assert len({before, swapped, data(tmp_path)}) == 3
    with pytest.raises(FileNotFoundError):
        data(tmp_path / "none")


def test_no_file_is_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"small": b"1", "large": b"22"})
    small, large = ((tmp_path / name).stat() for name in ("small", "large"))
    monkeypatch.setattr(fingerprints, "_content", lambda root, file, blocks: b"")

    def listed(sizes: list[os.stat_result]) -> str:
        found = [(f"{place:05d}.jpg", SimpleNamespace(stat=lambda size=size: size)) for place, size in enumerate(sizes)]
        monkeypatch.setattr(fingerprints, "walk", lambda root: iter(found))
        return data(tmp_path)

    sizes = [small] * 20_002
    assert listed(sizes) == listed(sizes) != listed([*sizes[:20_000], large, small])


def test_a_large_data_set_is_sampled_as_the_docstring_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WHOLE_FILES", 8), ("SAMPLED_FILES", 4), ("BLOCK", 4)):
        monkeypatch.setattr(fingerprints, name, value)
    pictures = {f"{number}.jpg": b"12345678" for number in range(10)}

    def changed(name: str, content: bytes) -> bool:
        write(tmp_path, pictures | {"labels.csv": b"1"})
        before = data(tmp_path)
        write(tmp_path, {name: content})
        return data(tmp_path) != before

    assert [number for number in range(10) if changed(f"{number}.jpg", b"1234567x")] == [0, 3, 6, 9]
    assert changed("1.jpg", b"1234567") and changed("labels.csv", b"2"), "sizes, and files of the other kind"
    pictures = {f"{number}.jpg": b"123456789abc" for number in range(10)}
    assert [place for place in range(12) if changed("3.jpg", bytes(x ^ (i == place) for i, x in enumerate(pictures["3.jpg"])))] == [
        0, 1, 2, 3, 8, 9, 10, 11,
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 20 * 2**20, 40 * 2**20 - 1], ids=["first byte", "middle", "last byte"])
def test_every_byte_of_a_large_model_or_data_file_counts(tmp_path: Path, place: int) -> None:
    """Times and sizes stay the same; one byte of 40 MiB differs."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(40 * 2**20))
    prints = Fingerprints.beside(tmp_path / "store")

    def hashes() -> tuple[str, str, str]:
        return prints.model(tmp_path), prints.file(path), prints.data(tmp_path)

    before, stat = hashes(), path.stat()
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\1")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = hashes()
    assert not set(before) & set(after)
    assert prints.model(path) == after[1] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_golden_fingerprints(tmp_path: Path) -> None:
    """A change here makes artifacts of every user new ones: say so in the change log."""
    write(tmp_path, {"config.json": b"{}", "unet/a.bin": b"a", "z.txt": b"z"})
    prints = Fingerprints.beside(None)
    assert (prints.model(tmp_path), prints.data(tmp_path)) == (
        "a82ced29dad5d1bcd7040801a5da85b89bcc194e5287a1c3319ae03ed4b56e65",
        "7908863eca0cdde53c01f7870a1f5b6bdf3ef9e0307ad9c6a3900a9af4e0feca",
    )


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file whose hash is worth keeping, and let it count as written long ago."""
    monkeypatch.setattr(fingerprints, "_SETTLED_NS", -(10**18))
    monkeypatch.setattr(hashcache, "_PROCESS", {})
    (tmp_path / "store").mkdir()
    (tmp_path / "large.bin").write_bytes(bytes(COSTLY))
    return tmp_path / "large.bin"


def again(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many files another process would read to hash ``path``."""
    read: list[Path] = []
    monkeypatch.setattr(hashcache, "_PROCESS", {})
    monkeypatch.setattr(fingerprints, "file_sha256", lambda file: read.append(file) or file_sha256(file))
    assert Fingerprints.beside(path.parent / "store").file(path) == file_sha256(path)
    return len(read)


def test_a_hash_is_kept_beside_the_store(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [again(large, monkeypatch) for _ in range(2)] == [1, 0]
    large.write_bytes(b"\1" + bytes(COSTLY - 1))
    assert [again(large, monkeypatch) for _ in range(2)] == [1, 0]
    write(large.parent, {"set/1.jpg": bytes(COSTLY)})
    assert Fingerprints.beside(large.parent / "store").data(large.parent / "set") == data(large.parent / "set")
    kept = json.loads((large.parent / "store" / "hashes.json").read_text())["hashes"]
    assert set(kept) == {f"file {large}", f"data {large.parent / 'set'}"}


def test_a_hash_of_another_machine_is_not_trusted(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(large, monkeypatch)
    monkeypatch.setattr(hashcache, "machine", lambda: "another")
    assert [again(large, monkeypatch) for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"hashes": 1, "seal": 2}', "edited", "\0\xff"])
def test_a_damaged_cache_is_made_anew(large: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    again(large, monkeypatch)
    cache = large.parent / "store" / "hashes.json"
    text = cache.read_text().replace(file_sha256(large), "0" * 64) if damage == "edited" else damage
    cache.write_text(text, encoding="latin-1")
    assert [again(large, monkeypatch) for _ in range(2)] == [1, 0]


def test_two_runs_keep_each_others_hashes(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (HashCache(large.parent / "store" / "hashes.json") for _ in range(2))
    assert one.get("a", "1") is two.get("b", "1") is None
    one.put("a", "1", "a" * 64)
    two.put("b", "1", "b" * 64)
    monkeypatch.setattr(hashcache, "_PROCESS", {})
    fresh = HashCache(large.parent / "store" / "hashes.json")
    assert (fresh.get("a", "1"), fresh.get("b", "1"), fresh.get("b", "2")) == ("a" * 64, "b" * 64, None)


def test_what_was_just_written_is_not_kept(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_SETTLED_NS", 10**18)
    assert [again(large, monkeypatch) for _ in range(2)] == [1, 1]


def test_a_plan_makes_no_store(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Fingerprints.beside(large.parent / "none").file(large)
    assert not (large.parent / "none").exists()


def test_an_edited_embedded_data_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.store.data import _check_written

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    source = find_data("in-val", load_profile("micro").profile.data["in-val"])
    assert isinstance(source, DataSource)
    root = materialise(source)
    picture = next(root / name for name in names(root) if name.endswith(".JPEG") or name.endswith(".png"))
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")
    _check_written.cache_clear()  # as in another process
    with pytest.raises(UserError, match="'in-val' have changed"):
        materialise(source)
    (root / DONE).write_text(source.data_hash + "\n")  # what an older version wrote
    _check_written.cache_clear()
    assert materialise(source) == root


def test_embedded_data_lie_in_a_folder_of_the_code_that_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What older code has left under the same identity is never read."""
    from harness.plan.profile import load_profile
    from harness.store import data

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    settings = load_profile("micro", [], []).profile.data["in-val"]
    mine = data.find_data("in-val", settings)
    monkeypatch.setattr(data, "code_hash", lambda work: "0" * 16 if work == "harness.microworld.datasets:write" else "")
    other = data.find_data("in-val", settings)
    assert isinstance(mine, data.DataSource) and isinstance(other, data.DataSource)
    assert mine.data_hash == other.data_hash and mine.root != other.root and other.root.endswith("-00000000")
