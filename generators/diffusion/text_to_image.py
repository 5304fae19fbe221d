"""Load any text-to-image pipeline of diffusers, whole and without code of its own, and sample it image by image."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generators.diffusion.auto import Pipeline, inspect_pipeline
from harness.api import DataMissing, UserError, first_line, load_pretrained


def fetch_pipeline(location: str) -> Path:
    """Return the folder of a pipeline; one of the hub is fetched at its commit first, without pickles and code.

    Raises:
        DataMissing: the hub does not give it.
    """
    if not location.startswith("hub:"):
        return Path(location)
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = location.removeprefix("hub:").partition("@")
    try:
        return Path(DiffusionPipeline.download(name, revision=revision, use_safetensors=True, trust_remote_code=False))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise DataMissing(
            f"cannot fetch {name} at {revision}",
            first_line(error),
            "check the name and the network, or download the pipeline and give its folder",
        ) from error


def load_text_to_image(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """Return the pipeline that ``AutoPipelineForText2Image`` makes of a folder, with every tensor from its files.

    Without safety checker, which would make images black, and without watermark, which depends on an installed package.

    Raises:
        DataMissing, UserError: as ``inspect_pipeline``, or it cannot be loaded.
    """
    from diffusers import AutoPipelineForText2Image

    found = inspect_pipeline(folder)
    parts = {name: _network(found, name, dtype) for name in found.networks}
    absent = dict.fromkeys(found.unused)
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(
            folder, torch_dtype=dtype, trust_remote_code=False, local_files_only=True, **parts, **absent
        )
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise UserError(
            f"AutoPipelineForText2Image cannot load {folder}",
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "give a folder that save_pretrained of a text-to-image pipeline wrote",
        ) from error
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _network(found: Pipeline, name: str, dtype: torch.dtype) -> Any:
    library, kind = found.parts[name]
    variant = found.networks[name].variant
    keyword = "torch_dtype" if library == "diffusers" else "dtype"
    options = {keyword: dtype, **({"variant": variant} if variant else {})}
    model = load_pretrained(
        getattr(importlib.import_module(library), kind),
        found.folder / name,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )
    return model.eval().requires_grad_(False)


def call_arguments(pipeline: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that are set, which the pipeline must have.

    Args:
        pipeline: The pipeline.
        wanted: Argument of ``__call__`` to its value; None and empty texts are left to the pipeline.

    Raises:
        UserError: it has no such argument, or would ignore a negative prompt.
    """
    known = inspect.signature(type(pipeline).__call__).parameters
    given = {name: value for name, value in wanted.items() if value not in (None, "", 0)}
    if wanted.get("guidance_scale") == 0:
        given["guidance_scale"] = 0.0
    lost = [name for name in given if name not in known]
    if "negative_prompt" in given and "true_cfg_scale" in known:
        lost.append("negative_prompt")  # it is read only with a second kind of guidance, which is off
    if lost:
        raise UserError(
            f"{type(pipeline).__name__} takes no {lost[0]}",
            f"the settings give it {given[lost[0]]!r}, which would have no effect",
            f"leave {_SETTING.get(lost[0], lost[0])} at its default",
        )
    if "height" in given and "use_resolution_binning" in known:
        given["use_resolution_binning"] = False  # it would draw at another size and shrink the image
    return given


_SETTING = {
    "guidance_scale": "generators.diffusers.guidance",
    "num_inference_steps": "generators.diffusers.sampling_steps",
    "height": "generators.diffusers.size",
    "width": "generators.diffusers.size",
    "negative_prompt": "generators.diffusers.negative_prompt",
}


@torch.inference_mode()
def draw_images(
    pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], batch: int, arguments: Mapping[str, Any]
) -> np.ndarray:
    """Return (N, H, W, 3) uint8 images; all random numbers of an image come from its own generator, on the processor.

    Every call has ``batch`` images, the last one filled up, because kernels may change low bits with the batch size.

    Args:
        pipeline: The pipeline.
        prompts: One per image; the batch is filled up with the last.
        seeds: One per image.
        batch: Images of one call, at least as many as prompts.
        arguments: Further arguments of the call.

    Raises:
        UserError: a pixel is not finite.
    """
    filled = [*range(len(seeds)), *[len(seeds) - 1] * (batch - len(seeds))]
    generators = [torch.Generator().manual_seed(seeds[place]) for place in filled]
    images = pipeline(
        prompt=[prompts[place] for place in filled], generator=generators, output_type="np", **arguments
    ).images
    kept = np.asarray(images)[: len(seeds)]
    if not np.isfinite(kept).all():
        raise UserError(
            "a synthesised image is not finite",
            "a network overflowed, as float16 does with some weights",
            "set precision=bf16 or precision=fp32 for this generator",
        )
    return np.rint(kept.clip(0, 1) * 255).astype(np.uint8)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Return a square image (H, W, 3) uint8 at another side in pixels (bicubic, with a wider filter when it shrinks).

    Raises:
        UserError: it is not square.
    """
    from PIL import Image

    height, width = image.shape[:2]
    if height != width:
        raise UserError(
            f"the pipeline draws images of {width} x {height} px",
            "a data set holds squares",
            "set generators.diffusers.size to the side in pixels",
        )
    if height == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
