"""Load the parts of a Stable Diffusion 1.5 style pipeline and encode prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from harness.api import DataMissing, UserError, load_pretrained

SD15_SCHEDULER: Mapping[str, Any] = MappingProxyType(
    {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "trained_betas": None,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
    }
)
"""Values published with Stable Diffusion 1.5; mirrors have changed scheduler files before, so they are checked."""

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
    """Load a StableDiffusionPipeline folder, or a hub id with a pinned revision, without its safety checker.

    Args:
        source: Folder or hub id.
        revision: Commit of a hub id.
        dtype: Type of the weights.
        device: Where they go.
        pickled: Take ``.bin`` files where a part has no safetensors; they are read as tensors only.

    Raises:
        DataMissing: the folder is not there or lacks a part.
        UserError: a hub id without a revision, or a scheduler that is not Stable Diffusion 1.5's.
    """
    root = _resolve(source, revision, PICKLED_FILES if pickled else HUB_FILES)
    classes = json.loads((root / "model_index.json").read_text())
    check_scheduler(config := _scheduler_config(root))
    where = torch.device(device)
    parts = {name: _load_part(root, name, classes, dtype, pickled) for name in ("text_encoder", "vae", "unet")}
    return DiffusionParts(
        tokenizer=_tokenizer(root, classes, parts["text_encoder"]),
        text_encoder=freeze(parts["text_encoder"], where),
        vae=freeze(parts["vae"], where),
        unet=freeze(parts["unet"], where),
        scheduler_config=MappingProxyType(config),
        source=str(source),
        revision=revision,
        device=where,
        dtype=dtype,
    )


def freeze(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to the device, in eval mode and without gradients."""
    return module.to(device).eval().requires_grad_(False)


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Compare a scheduler's configuration with Stable Diffusion 1.5's and refuse any other.

    Raises:
        UserError: a value differs; it is named.
    """
    wrong = [f"{key} is {config.get(key)!r}" for key, value in SD15_SCHEDULER.items() if config.get(key) != value]
    if config.get("_class_name") != "PNDMScheduler":
        wrong.insert(0, f"the class is {config.get('_class_name')!r}")
    if config.get("clip_sample"):
        wrong.append("clip_sample is on")
    if wrong:
        raise UserError(
            "the scheduler is not Stable Diffusion 1.5's",
            "; ".join(wrong),
            f"use a pipeline whose scheduler is a PNDMScheduler with {dict(SD15_SCHEDULER)}",
        )


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
    if root.is_dir():
        if not (root / "model_index.json").is_file():
            raise DataMissing(
                f"{root} is not a diffusion pipeline",
                "it has no model_index.json",
                "point at a folder written by StableDiffusionPipeline.save_pretrained",
            )
        return root
    text = str(source)
    if root.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise DataMissing(
            f"no diffusion pipeline at {text}",
            "the folder does not exist",
            "give a pipeline folder or a hub id",
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
            str(error).splitlines()[0],
            "check the name and the network, or download the pipeline and give its folder",
        ) from error


def _scheduler_config(root: Path) -> dict[str, Any]:
    from diffusers import PNDMScheduler

    path = root / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise DataMissing(f"{root} has no scheduler", f"{path.name} is missing", "complete the pipeline folder")
    raw = json.loads(path.read_text())
    filled = dict(PNDMScheduler.from_config(raw).config)  # fills in the defaults that a file may leave out
    return {key: filled.get(key, raw.get(key)) for key in {*filled, *raw}} | {"_class_name": raw.get("_class_name")}


def _tokenizer(root: Path, classes: Mapping[str, Any], text_encoder: Any) -> Any:
    """Return the tokenizer, which must have the text encoder's vocabulary.

    Where its files are missing transformers makes one that knows two tokens, and every prompt becomes the same.
    """
    fix = "complete the tokenizer folder (vocab.json and merges.txt, or tokenizer.json), or save the pipeline again"
    try:
        tokenizer = _load_part(root, "tokenizer", classes, None)
    except (OSError, ValueError, TypeError) as error:
        raise DataMissing(f"the tokenizer in {root} cannot be read", str(error).splitlines()[0], fix) from error
    vocabulary = text_encoder.config.vocab_size
    if len(tokenizer) != vocabulary:
        why = f"it knows {len(tokenizer)} tokens, the text encoder {vocabulary}"
        raise UserError(f"the tokenizer in {root} does not fit the text encoder", why, fix)
    return tokenizer


def _load_part(
    root: Path, name: str, classes: Mapping[str, Any], dtype: torch.dtype | None, pickled: bool = False
) -> Any:
    library, class_name = classes.get(name) or ("", "")
    if library not in {"diffusers", "transformers"} or not (root / name).is_dir():
        raise DataMissing(
            f"{root} has no usable {name}",
            f"model_index.json says {classes.get(name)!r}",
            "complete the pipeline folder, or save it again with save_pretrained",
        )
    import importlib

    kind = getattr(importlib.import_module(library), class_name)
    if dtype is None:
        return kind.from_pretrained(root / name)
    keyword = "torch_dtype" if library == "diffusers" else "dtype"
    safe = not pickled or next((root / name).glob("*.safetensors"), None) is not None
    return load_pretrained(kind, root / name, use_safetensors=safe, **{keyword: dtype})
