"""A checkpoint with a flipped bit is damaged, wherever the bit is: torch itself does not look at checksums."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.core.errors import UserError
from harness.core.intact import zip_damage


def test_a_flipped_bit_of_a_checkpoint_is_seen(tmp_path: Path) -> None:
    import torch

    from harness.backbones.checkpoint import import_checkpoint
    from harness.backbones.models import create

    torch.manual_seed(0)
    path = tmp_path / "small.pth"
    torch.save(create("resnet10", 4).state_dict(), path)
    whole = path.read_bytes()
    assert zip_damage(path) == ""
    torch_believes = 0
    for place in random.Random(0).sample(range(len(whole) // 10, len(whole) * 8 // 10), 8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            torch.load(path, weights_only=True)
            torch_believes += 1
        except Exception:
            continue
        if zip_damage(path) == "":  # the padding between members, which holds nothing
            assert all(torch.equal(a, b) for a, b in zip(*_both(path, whole), strict=True))
            continue
        with pytest.raises(UserError, match=r"small.pth cannot be read"):
            import_checkpoint(path, "resnet10", ("a", "b", "c", "d"), (0.5,) * 3, (0.5,) * 3, tmp_path / "out")
    assert torch_believes >= 6


def _both(path: Path, whole: bytes) -> list[list[object]]:
    """Return the tensors of a file, and those of its content before."""
    import io

    import torch

    return [list(torch.load(place, weights_only=True).values()) for place in (path, io.BytesIO(whole))]


def test_files_of_other_kinds_and_cut_ones(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "x"
    path.write_bytes(b"no zip at all")
    assert zip_damage(path) == ""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("member", b"x" * 1000)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"x" * 1000, b"x" * 999 + b"y"))
    assert zip_damage(path) == "member"
