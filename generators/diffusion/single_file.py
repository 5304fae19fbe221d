"""Checkpoints that come as a single file with the original names: Stable Diffusion 1.x, read with configurations at hand."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.diffusion.base import BaseModel
from generators.diffusion.checkpoint_names import TEXT, UNET, UPDATES, VAE, averaged_name, refuse_doubtful_average
from generators.diffusion.weight_files import AGAIN
from harness.api import UserError, check_finite, check_state, is_zip

_PREFIX = "text_model."
_UNUSED = "embeddings.position_ids"
"""A table that old versions of transformers stored; it follows from the configuration."""


def load_single_file(base: BaseModel, dtype: torch.dtype) -> dict[str, Any]:
    """Load the networks of a single-file checkpoint.

    Of a UNet that comes with its average (``v1-5-pruned``) the average is taken, as in the published pipeline folder.

    Returns:
        ``unet``, ``vae`` and ``text_encoder``, every tensor of them from the file.

    Raises:
        UserError: it cannot be read as tensors, does not fit the configuration, or holds NaN or infinite values; its average is
            incomplete or was never updated.
    """
    assert base.checkpoint is not None
    state = _averaged(base.checkpoint, _read(base.checkpoint))
    networks = {
        "unet": _converted("UNet2DConditionModel", "unet", UNET, state, base, dtype),
        "vae": _converted("AutoencoderKL", "vae", VAE, state, base, dtype),
        "text_encoder": _text_encoder(state, base, dtype),
    }
    for part, network in networks.items():
        check_finite(network.state_dict(), f"the {part} in {base.checkpoint}")
    return networks


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as tensors", " ".join(str(error).split())[:200], AGAIN) from error
    archive = is_zip(path)
    try:
        # Training tools leave classes of their own beside the tensors; nothing of them is looked up or run.
        others = torch.serialization.get_unsafe_globals_in_checkpoint(path) if archive else []
        with torch.serialization.safe_globals([(_Ignored, name) for name in others]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
        state = found.get("state_dict", found)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:  # unpicklers raise many kinds for a foreign file
        why = "it holds more than tensors, which could run code: " + " ".join(str(error).split())[:200]
        fix = "convert it on a machine where you trust the file: safetensors.torch.save_file(torch.load(FILE)['state_dict'], OUT)"
        raise UserError(f"{path} cannot be read as tensors", why, fix) from error


class _Ignored:
    """Stands for whatever a pickle holds beside tensors."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _averaged(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state whose UNet is the average, if there is one."""
    names = {name: averaged_name(name) for name in state if name.startswith(UNET)}
    if not any(flat in state for flat in names.values()):
        return state
    lacking = [name for name, flat in names.items() if flat not in state or state[flat].shape != state[name].shape]
    refuse_doubtful_average(path, lacking, untouched=UPDATES in state and not bool(state[UPDATES].any()))
    return state | {name: state[flat] for name, flat in names.items()}


def _converted(
    kind: str, part: str, prefix: str, state: Mapping[str, Tensor], base: BaseModel, dtype: torch.dtype
) -> nn.Module:
    """Load one network of diffusers, which knows the original names; the numbers of tensors must agree."""
    import diffusers

    own = {name: value for name, value in state.items() if name.startswith(prefix)}
    try:
        model: nn.Module = getattr(diffusers, kind).from_single_file(
            own, config=str(base.config), subfolder=part, torch_dtype=dtype, local_files_only=True
        )
    except (RuntimeError, ValueError, KeyError) as error:
        raise _unfit(base, part, " ".join(str(error).split())[:300]) from error
    empty = [name for name, value in model.named_parameters() if value.is_meta]
    if empty or len(own) != len(model.state_dict()):
        why = f"{len(own)} tensors for {len(model.state_dict())}" + (f"; {empty[0]} is missing" if empty else "")
        raise _unfit(base, part, why)
    return model


def _unfit(base: BaseModel, part: str, why: str) -> UserError:
    return UserError(
        f"the {part} in {base.checkpoint} does not fit its configuration",
        why,
        "use the configuration of the same model",
    )


def _text_encoder(state: Mapping[str, Tensor], base: BaseModel, dtype: torch.dtype) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig.from_pretrained(str(base.config / "text_encoder"))).to(dtype)
    own = {
        name.removeprefix(TEXT).removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(TEXT)
    }
    own.pop(_UNUSED, None)
    names = {name.removeprefix(_PREFIX): name for name in model.state_dict() if not name.endswith(_UNUSED)}
    wanted = model.state_dict()
    check_state(own, {short: wanted[name] for short, name in names.items()}, f"the text encoder in {base.checkpoint}")
    model.load_state_dict({names[short]: value for short, value in own.items()}, strict=False)
    return model


def clip_tokenizer() -> Any:
    """Build CLIP's tokenizer, that of Stable Diffusion 1.5, from the merges that open_clip carries."""
    import open_clip
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizer

    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(line.split()) for line in lines)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(
            json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8"
        )
        (Path(folder) / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)
