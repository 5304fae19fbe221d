"""What is said of the models that settings name, for ``plan`` and ``doctor``: configurations and headers only (no torch)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generators.diffusion.base import inspect_base
from generators.diffusion.weight_files import check_downloaded, read_header
from harness.api import DataMissing, HubModel, ModelReport, hub_models, local_source

CONFIG, OPEN_CLIP = "config.json", "open_clip_config.json"
_REMOTE = "from the hub: its form is checked when it is first read"
HUB_FILES = (
    "model_index.json",
    "tokenizer/*",
    "scheduler/*",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
)
"""What is fetched from a hub: no safety checker, no pickles, no duplicate precisions."""
PICKLED_FILES = (
    "model_index.json",
    "tokenizer/*",
    "scheduler/*",
    "text_encoder/config.json",
    "text_encoder/pytorch_model.bin",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
)
"""What is fetched of a pipeline published before safetensors; read as tensors only, no code in them is run."""


def report_base(setting: str, location: str) -> Iterator[ModelReport]:
    """Yield what a base model is, or that it will be fetched; nothing for an empty setting.

    Raises:
        UserError: it cannot be used.
    """
    if path := local_source(location):
        base = inspect_base(path)
        yield ModelReport(setting, location, base.layout, base.notes)
    elif location not in ("", "none"):
        yield ModelReport(setting, location, _REMOTE)


def base_models(location: str, files: tuple[str, ...] = HUB_FILES) -> tuple[HubModel, ...]:
    """Return what a base model needs from the hub; nothing for one on this machine."""
    return hub_models(location, files=files, first_of=())


def report_folder(setting: str, location: str, config: str = CONFIG) -> Iterator[ModelReport]:
    """Yield that the files of a model's folder are there and whole; nothing for an empty setting, a tag or a file.

    Args:
        setting: Name of the setting.
        location: Its value.
        config: Name of the configuration that the folder must hold.

    Raises:
        UserError: one of them is damaged or was not downloaded.
    """
    path = local_source(location)
    if path is None or not path.is_dir():
        return
    check_downloaded(path / config)
    weights = _files(path, ".safetensors") or _files(path, ".bin", ".pt", ".pth")
    if not weights:
        raise DataMissing(f"no weights in {path}", f"{setting} names it", "give the model's folder, or complete it")
    for file in weights:
        read_header(file)
    for file in _files(path, ".json", ".txt", ".model"):
        check_downloaded(file)
    yield ModelReport(setting, location, "model folder")


def _files(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix in suffixes)
