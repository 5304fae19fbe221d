"""CLIP weights given by file: activation and inputs come from what is known of the file, never from a silent default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from harness.core.clip_files import CONFIG, find_clip
from harness.core.errors import UserError
from harness.core.weights import create_open_clip

TINY: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PLAIN, QUICK = "harness-tiny", "harness-tiny-quickgelu"
INPUTS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture(autouse=True)
def _architectures(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, config in ((PLAIN, TINY), (QUICK, {**TINY, "quick_gelu": True})):
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def network() -> Any:
    torch.manual_seed(0)
    return open_clip.create_model(QUICK).eval()


def pushed(folder: Path) -> Path:
    """Write a folder as open_clip pushes it to the hub, and return its file of weights."""
    folder.mkdir()
    torch.save(network().state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / CONFIG).write_text(json.dumps({"model_cfg": {**TINY, "quick_gelu": True}, "preprocess_cfg": INPUTS}))
    return folder / "open_clip_pytorch_model.bin"


def test_the_configuration_beside_a_file_decides_or_contradicts(tmp_path: Path) -> None:
    path = pushed(tmp_path / "hub")
    model = create_open_clip(QUICK, str(path)).eval()
    assert tuple(model.visual.image_mean) == (0.5,) * 3 and model.visual.preprocess_cfg["resize_mode"] == "squash"
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(pixels), network().encode_image(pixels))
    with pytest.raises(UserError, match="is not open_clip's harness-tiny") as caught:
        create_open_clip(PLAIN, str(path))
    assert "quick_gelu" in caught.value.why and f"local-dir:{path.parent}" in caught.value.fix
    torch.save(network().state_dict(), path.with_name("another.bin"))
    with pytest.raises(UserError, match="several files"):
        create_open_clip(QUICK, str(path.with_name("another.bin")))


def test_a_file_that_open_clip_publishes_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"url": "https://example.org/tiny-0123.pt", "quick_gelu": True, **INPUTS}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _: ["ours"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: listed)
    torch.save(network().state_dict(), tmp_path / "tiny-0123.pt")
    model = create_open_clip(QUICK, str(tmp_path / "tiny-0123.pt"))
    assert tuple(model.visual.image_mean) == (0.5,) * 3
    assert "ours, by the name of the file" in find_clip(QUICK, str(tmp_path / "tiny-0123.pt")).origin
    with pytest.raises(UserError, match="does not fit its weights") as caught:
        create_open_clip(PLAIN, str(tmp_path / "tiny-0123.pt"))
    assert QUICK in caught.value.fix


def test_a_file_of_which_nothing_is_known_is_read_by_default_and_that_is_said(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pt")
    create_open_clip(PLAIN, str(tmp_path / "w.pt"))
    assert "with GELU, by default: w.pt does not state it" in find_clip(PLAIN, str(tmp_path / "w.pt")).origin
    assert "with QuickGELU" in find_clip(QUICK, str(tmp_path / "w.pt")).origin


def test_openais_own_state_dict_is_read_with_its_activation(tmp_path: Path) -> None:
    sizes = {
        name: torch.tensor(size)
        for name, size in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408))
    }
    state = {key: value.half() for key, value in network().state_dict().items()}
    torch.save({**state, **sizes}, tmp_path / "openai.pt")
    held = create_open_clip(QUICK, str(tmp_path / "openai.pt")).state_dict()
    assert all(torch.equal(held[key], value.float()) for key, value in state.items())
    with pytest.raises(UserError, match="does not fit its weights") as caught:
        create_open_clip(PLAIN, str(tmp_path / "openai.pt"))
    assert "trained with QuickGELU" in caught.value.why and QUICK in caught.value.fix


def test_openais_archive_is_named_for_what_it_is(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(UserError, match="TorchScript archive") as caught:
        create_open_clip(PLAIN, str(tmp_path / "ViT-B-32.pt"))
    assert "state_dict" in caught.value.fix
