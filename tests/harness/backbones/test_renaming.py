"""Old names of tensors: renamed as the network's own library does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

OLD_NAMES: dict[str, tuple[str, str, str]] = {
    "vit_b_32": (r"\.mlp\.(0|3)\.", r".mlp.linear_\1.", "linear_"),
    "densenet121": (r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", "norm.1"),
    "mnasnet0_5": ("$", "", ""),
}
"""Pattern and replacement that make today's names those of torchvision's published files."""


@pytest.mark.parametrize("arch", OLD_NAMES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_old_names_of_torchvisions_files_are_read_as_torchvision_reads_them(
    arch: str, prefix: str, tmp_path: Path
) -> None:
    from torchvision import models

    from harness.backbones.outside import load_into
    from harness.core.classes import ClassList

    torch.manual_seed(0)
    net, other = (models.get_model(arch, weights=None, num_classes=4).eval() for _ in range(2))
    pattern, old, word = OLD_NAMES[arch]
    renamed = {prefix + re.sub(pattern, old, key).replace("linear_0", "linear_1").replace("linear_3", "linear_2"): value
               for key, value in net.state_dict().items()}  # fmt: skip
    assert not word or sum(word in key for key in renamed) > 10
    torch.save({"model": renamed}, tmp_path / "w.pth")
    load_into(other, tmp_path / "w.pth", arch, ClassList("four", tuple("abcd"), tuple("abcd")), "")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())


def test_the_version_that_a_file_notes_reaches_the_modules_that_rename(tmp_path: Path) -> None:
    """A module renames by the version in ``_metadata``; torch.save keeps it, also below a wrapper's prefix."""
    from harness.backbones.matching import Network
    from harness.backbones.renaming import renamed

    class Part(torch.nn.Module):
        _version = 3

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(2))

        def _load_from_state_dict(self, state: Any, prefix: str, noted: Any, *rest: Any) -> None:
            if noted.get("version") == 2 and f"{prefix}old" in state:
                state[f"{prefix}scale"] = state.pop(f"{prefix}old")
            super()._load_from_state_dict(state, prefix, noted, *rest)

    net = torch.nn.Sequential(torch.nn.Linear(2, 2), Part())
    wrapped = torch.nn.DataParallel(net).state_dict()
    wrapped["module.1.old"] = wrapped.pop("module.1.scale")
    network = Network(net.state_dict(), net.state_dict(), {})
    for version, expected in ((2, "module.1.scale"), (3, "module.1.old")):
        wrapped._metadata["module.1"] = {"version": version}
        torch.save({"state_dict": wrapped}, tmp_path / "w.pth")
        assert expected in renamed(torch.load(tmp_path / "w.pth"), net, network)["state_dict"]
