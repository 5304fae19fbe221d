"""Synthesis from the real latent: one image for each real one, under its own caption and a visual token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.diffusion.finetune import sample_posterior
from generators.diffusion.lora_io import FILE_NAME, apply_lora, load_lora
from generators.diffusion.pipeline import DiffusionParts, encode_prompts
from generators.diffusion.real_images import RealImages, squash
from generators.diffusion.sampling import MICRO_BATCH, ImageStart, image_noise, sample_from_images
from generators.realfake import captions, features
from generators.realfake.prompts import NEGATIVE, class_name, prompt
from generators.realfake.visual import interleaved, released_batch, with_visual_token
from generators.sd15 import load_parts
from harness.api import Context, Request, Sample


@dataclass(frozen=True)
class Material:
    """What every request needs."""

    parts: DiffusionParts
    images: RealImages
    rows: Sequence[Mapping[str, Any]]
    by_class: Mapping[int, Sequence[int]]
    features: np.ndarray
    token_scale: float


def load_material(ctx: Context) -> Material:
    """Load the pipeline with the LoRA at its synthesis scale, the real images, their captions and features."""
    weights = load_lora(ctx.inputs["weights"].path(FILE_NAME))
    parts = apply_lora(load_parts(ctx), weights, scale=ctx.params["settings"]["lora_scale"])
    images = RealImages.of(ctx)
    rows = captions.read_captions(ctx.inputs["captions"].path(captions.FILE))
    found = np.load(ctx.inputs["features"].path(features.FILE))
    return Material(parts, images, rows, images.by_class, found, ctx.params["settings"]["token_scale"])


def make_images(ctx: Context, material: Material, request: Request) -> Iterator[Sample]:
    """Yield the images of a request; image i starts from the i-th real image of its class.

    A class with fewer real images than asked for begins a second pass over them with new noise.
    """
    settings, own = ctx.params["settings"], material.by_class[request.class_index]
    uncond = encode_prompts(material.parts, [NEGATIVE])[0]
    name = class_name(request.class_id, request.class_name)
    token_of = _released_token if settings["visual_token"] == "released" else _own_token
    for first in range(request.start, request.stop, MICRO_BATCH):
        indices = range(first, min(first + MICRO_BATCH, request.stop))
        positions = [own[index % len(own)] for index in indices]
        tokens = torch.stack([token_of(material.features, own, index % len(own)) for index in indices])
        prompts = [prompt(name, material.rows[position]["caption"]) for position in positions]
        seeds = [request.seed(index) for index in indices]
        images = sample_from_images(
            material.parts,
            _condition(material, prompts, tokens),
            uncond,
            ImageStart(
                _real_latents(material, positions, [request.seed(index, "posterior") for index in indices]),
                torch.stack([image_noise(seed, material.parts.latent_shape) for seed in seeds]),
                settings["strength"],
            ),
            steps=settings["sampling_steps"],
            guidance=settings["guidance"],
        )
        for index, seed, text, position, image in zip(indices, seeds, prompts, positions, images, strict=True):
            yield Sample(index, image, text, NEGATIVE, seed, parent=material.images.names[position])


def _own_token(features: np.ndarray, own: Sequence[int], place: int) -> Tensor:
    """Return the feature of the real image at a place of its class, float32."""
    return torch.from_numpy(features[own[place]].astype(np.float32))


def _released_token(features: np.ndarray, own: Sequence[int], place: int) -> Tensor:
    """Return what the published code takes for it: a mixture of the features of its batch."""
    batch = released_batch(place, len(own))
    mixed = interleaved(torch.stack([_own_token(features, own, each) for each in batch]))
    return mixed[place - batch.start]


def _condition(material: Material, prompts: Sequence[str], tokens: Tensor) -> Tensor:
    hidden = encode_prompts(material.parts, prompts)
    return with_visual_token(hidden, tokens.to(hidden.device), material.token_scale)


@torch.no_grad()
def _real_latents(material: Material, positions: Sequence[int], seeds: Sequence[int]) -> Tensor:
    parts = material.parts
    latents = []
    for position, seed in zip(positions, seeds, strict=True):
        image = squash(material.images.picture(position), parts.image_size)[None].to(parts.device)
        latents.append(sample_posterior(parts, image, torch.Generator().manual_seed(seed)))
    return torch.cat(latents)
