"""Load the parts of a Stable Diffusion 1.5 style pipeline and encode prompts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from generators.diffusion.base import BaseModel, PartFiles, inspect_base, read_json
from generators.diffusion.models import HUB_FILES, PICKLED_FILES
from generators.diffusion.scheduler import PUBLISHED, SD15_SCHEDULER
from harness.api import DataMissing, UserError, first_line, load_pretrained


@dataclass(frozen=True)
class DiffusionParts:
    """The frozen parts of a latent diffusion pipeline; all modules are in eval mode and need no gradient."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    scheduler_config: Mapping[str, Any]
    source: str
    revision: str | None
    device: torch.device
    dtype: torch.dtype
    _prompts: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def scaling_factor(self) -> float:
        """Return the factor between the autoencoder's latents and the diffusion latents (0.18215 for SD1.5)."""
        return float(self.vae.config.scaling_factor)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of one latent: (4, 64, 64) for SD1.5."""
        size = int(self.unet.config.sample_size)
        return int(self.unet.config.in_channels), size, size

    @property
    def image_size(self) -> int:
        """Return the side of the decoded image in pixels: 512 for SD1.5."""
        return self.latent_shape[1] * 2 ** (len(self.vae.config.block_out_channels) - 1)


def load_pipeline(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    pickled: bool = False,
) -> DiffusionParts:
    """Load Stable Diffusion 1.5 from a pipeline folder, a single-file checkpoint, or a hub id with a pinned revision.

    The safety checker is never loaded. Files of any precision are read; the weights are then of type ``dtype``.

    Args:
        source: Folder, file or hub id.
        revision: Commit of a hub id.
        dtype: Type of the weights.
        device: Where they go.
        pickled: Fetch the ``.bin`` files of a hub id.

    Raises:
        DataMissing: the folder is not there or lacks a part.
        UserError: a hub id without a revision, damaged files, or a model that is not Stable Diffusion 1.5.
    """
    base = inspect_base(_resolve(source, revision, PICKLED_FILES if pickled else HUB_FILES))
    networks, where = _networks(base, dtype), torch.device(device)
    return DiffusionParts(
        tokenizer=_tokenizer(base, networks["text_encoder"]),
        text_encoder=freeze(networks["text_encoder"], where),
        vae=freeze(networks["vae"], where),
        unet=freeze(networks["unet"], where),
        scheduler_config=MappingProxyType(_scheduler_config(base.config)),
        source=str(source),
        revision=revision,
        device=where,
        dtype=dtype,
    )


def _networks(base: BaseModel, dtype: torch.dtype) -> dict[str, Any]:
    if base.checkpoint is not None:
        from generators.diffusion.single_file import load_single_file

        return load_single_file(base, dtype)
    classes = read_json(base.config / "model_index.json")
    return {name: _load_part(base.config / name, classes[name], part, dtype) for name, part in base.parts.items()}


def freeze(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to the device, in eval mode and without gradients."""
    return module.to(device).eval().requires_grad_(False)


def encode_prompts(parts: DiffusionParts, prompts: Sequence[str]) -> Tensor:
    """Return the text encoder's last hidden states, (N, tokens, width), each prompt encoded once and kept.

    Prompts are encoded one at a time, so that an embedding does not depend on its neighbours. The unconditional
    embedding is that of the empty string.
    """
    for prompt in prompts:
        if prompt not in parts._prompts:
            parts._prompts[prompt] = _encode(parts, prompt)
    return torch.stack([parts._prompts[prompt] for prompt in prompts])


def _encode(parts: DiffusionParts, prompt: str) -> Tensor:
    length = min(parts.tokenizer.model_max_length, parts.text_encoder.config.max_position_embeddings)
    tokens = parts.tokenizer(
        [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    with (
        torch.inference_mode(False),
        torch.no_grad(),
    ):  # a cached inference tensor could not be trained through
        return parts.text_encoder(tokens.to(parts.device))[0][0]


def _resolve(source: str | Path, revision: str | None, files: Sequence[str]) -> Path:
    root = Path(source)
    if root.exists():
        return root
    text = str(source)
    if root.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise DataMissing(
            f"no diffusion pipeline at {text}",
            "there is no such folder or file",
            "give a pipeline folder, a single-file checkpoint or a hub id",
        )
    if not revision:
        raise UserError(
            f"the hub model {text} is not pinned",
            "a moving revision cannot be reproduced",
            "name the commit, as in hub:OWNER/NAME@COMMIT",
        )
    return _download(text, revision, files)


def _download(repository: str, revision: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataMissing(
            f"cannot fetch {repository} at {revision}",
            first_line(error),
            "check the name and the network, or download the pipeline and give its folder",
        ) from error


def _scheduler_config(root: Path) -> dict[str, Any]:
    """Return the published scheduler's values; a file that names another class gives way to it, having been checked."""
    from diffusers import PNDMScheduler

    raw = read_json(root / "scheduler" / "scheduler_config.json")
    if raw.get("_class_name") != PUBLISHED:
        raw = {"_class_name": PUBLISHED, **SD15_SCHEDULER}
    filled = dict(PNDMScheduler.from_config(raw).config)  # fills in the defaults that a file may leave out
    return {key: filled.get(key, raw.get(key)) for key in {*filled, *raw}} | {"_class_name": raw["_class_name"]}


def _tokenizer(base: BaseModel, text_encoder: Any) -> Any:
    """Return the tokenizer, which must have the text encoder's vocabulary.

    Where its files are missing transformers makes one that knows two tokens, and every prompt becomes the same.
    """
    if not base.own_tokenizer:
        from generators.diffusion.single_file import clip_tokenizer

        return clip_tokenizer()
    root = base.config
    fix = "complete the tokenizer folder (vocab.json and merges.txt, or tokenizer.json), or save the pipeline again"
    try:
        tokenizer = _kind(read_json(root / "model_index.json")["tokenizer"]).from_pretrained(
            root / "tokenizer", trust_remote_code=False
        )
    except (OSError, ValueError, TypeError) as error:
        raise DataMissing(f"the tokenizer in {root} cannot be read", first_line(error), fix) from error
    vocabulary = text_encoder.config.vocab_size
    if len(tokenizer) != vocabulary:
        why = f"it knows {len(tokenizer)} tokens, the text encoder {vocabulary}"
        raise UserError(f"the tokenizer in {root} does not fit the text encoder", why, fix)
    return tokenizer


def _kind(named: Sequence[str]) -> Any:
    """Return the class that an entry of model_index.json names, of diffusers or transformers."""
    library, name = named
    return getattr(importlib.import_module(library), name)


def _load_part(folder: Path, named: Sequence[str], files: PartFiles, dtype: torch.dtype) -> Any:
    keyword = "torch_dtype" if named[0] == "diffusers" else "dtype"
    variant = {"variant": files.variant} if files.variant else {}
    return load_pretrained(_kind(named), folder, use_safetensors=files.safetensors, **variant, **{keyword: dtype})
