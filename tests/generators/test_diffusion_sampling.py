"""Synthesis: the calls of the UNet, independence of the batch, the pipeline's checks and the ordered encoder."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from generators.diffusion.pipeline import encode_prompts, load_pipeline
from generators.diffusion.sampling import image_noise, sample_images, to_uint8
from generators.diffusion.scheduler import check_scheduler
from harness.core.errors import DataMissing, UserError


@pytest.fixture(scope="module")
def request_of_nine(tiny_parts):
    """Return prompts, the empty prompt and noise of nine images."""
    text = encode_prompts(tiny_parts, ["tench", "hen", "crane"] * 3)
    noise = torch.stack([image_noise(seed, tiny_parts.latent_shape) for seed in range(9)])
    return text, encode_prompts(tiny_parts, [""])[0], noise


class CountingUNet:
    def __init__(self, unet):
        self.unet, self.calls = unet, []

    def __call__(self, latents, timestep, encoder_hidden_states):
        self.calls.append((int(timestep), len(latents), encoder_hidden_states))
        return self.unet(latents, timestep, encoder_hidden_states=encoder_hidden_states)


def test_sampling_calls_the_unet_51_times_with_the_empty_string_beside_the_prompt(tiny_parts, request_of_nine):
    text, uncond, noise = request_of_nine
    counter = CountingUNet(tiny_parts.unet)
    parts = copy.copy(tiny_parts)
    object.__setattr__(parts, "unet", counter)
    images = sample_images(parts, text[:2], uncond, noise[:2], micro_batch=2)
    assert len(counter.calls) == 51
    assert [call[0] for call in counter.calls[:4]] == [981, 961, 961, 941]
    assert {call[1] for call in counter.calls} == {4}
    for _, _, embeddings in counter.calls:
        assert torch.equal(embeddings[:2], uncond.expand(2, -1, -1)), "no negative prompt: the empty string"
        assert torch.equal(embeddings[2:], text[:2])
    assert images.shape == (2, 16, 16, 3) and images.dtype == np.uint8
    assert all(image.std() > 2 for image in images), "no image is blacked out"


def test_sampling_equals_the_stock_pipeline(tiny_parts, tiny_pipeline_dir):
    from diffusers import StableDiffusionPipeline

    stock = StableDiffusionPipeline.from_pretrained(tiny_pipeline_dir, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    noise = torch.stack([image_noise(seed, tiny_parts.latent_shape) for seed in (1, 2)])
    theirs = stock(["tench", "hen"], guidance_scale=2.0, latents=noise, height=16, width=16, output_type="np").images
    ours = sample_images(
        tiny_parts,
        encode_prompts(tiny_parts, ["tench", "hen"]),
        encode_prompts(tiny_parts, [""])[0],
        noise,
        guidance=2.0,
    )
    assert np.abs(ours.astype(int) - (theirs * 255).round().astype(int)).max() <= 1


@pytest.mark.parametrize("scheduler", ["pndm", "ddpm"])
def test_bytes_do_not_depend_on_the_batch(tiny_parts, request_of_nine, scheduler):
    text, uncond, noise = request_of_nine
    seeds = list(range(50, 59))

    def sample(rows):
        return sample_images(
            tiny_parts,
            text[rows],
            uncond,
            noise[rows],
            steps=6,
            scheduler=scheduler,
            micro_batch=4,
            step_seeds=[seeds[row] for row in rows],
        )

    whole = sample(list(range(9)))
    for rows in ([0], [8, 3], [5, 1, 2], [7, 6, 5, 4, 3, 2, 1, 0]):
        assert np.array_equal(sample(rows), whole[rows]), rows
    assert not np.array_equal(whole[0], whole[3]), "same prompt, other noise"


def test_ddpm_needs_step_seeds(tiny_parts, request_of_nine):
    text, uncond, noise = request_of_nine
    with pytest.raises(ValueError, match="step seed"):
        sample_images(tiny_parts, text, uncond, noise, steps=2, scheduler="ddpm")


def test_image_noise_is_a_function_of_its_seed():
    assert torch.equal(image_noise(5, (4, 8, 8)), image_noise(5, (4, 8, 8)))
    assert not torch.equal(image_noise(5, (4, 8, 8)), image_noise(6, (4, 8, 8)))
    assert image_noise(5, (4, 64, 64)).std().item() == pytest.approx(1, abs=0.03)


def test_rounding_and_clamping():
    values = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.51 / 255, 1.0, 7.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(values)[0, 0, :, 1].tolist() == [0, 0, 0, 1, 255, 255]


def test_prompts_are_cached_and_independent_of_their_neighbours(tiny_parts):
    parts = dataclasses.replace(tiny_parts, _prompts={})
    with torch.inference_mode():
        together = encode_prompts(parts, ["crane", "hen", "crane"])
    assert len(parts._prompts) == 2
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    fresh = dataclasses.replace(tiny_parts, _prompts={})
    assert torch.equal(encode_prompts(fresh, ["hen"])[0], together[1])
    assert not any(each.is_inference() for each in parts._prompts.values())


def test_loaded_parts_are_frozen_and_sized(tiny_parts):
    assert tiny_parts.latent_shape == (4, 8, 8)
    assert tiny_parts.image_size == 16
    assert tiny_parts.scaling_factor == pytest.approx(0.18215)
    modules = (tiny_parts.unet, tiny_parts.vae, tiny_parts.text_encoder)
    assert not any(each.requires_grad for module in modules for each in module.parameters())
    assert not any(module.training for module in modules)


@pytest.mark.parametrize(
    ("key", "value"),
    [("beta_end", 0.02), ("steps_offset", 0), ("skip_prk_steps", False), ("clip_sample", True)],
)
def test_a_changed_scheduler_is_refused(tiny_parts, tiny_pipeline_dir, tmp_path, key, value):
    with pytest.raises(UserError, match=r"not Stable Diffusion 1\.5's") as caught:
        check_scheduler({**tiny_parts.scheduler_config, key: value})
    assert key in caught.value.why
    check_scheduler(tiny_parts.scheduler_config)
    folder = shutil.copytree(tiny_pipeline_dir, tmp_path / "sd")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=r"not Stable Diffusion 1\.5's"):
        load_pipeline(folder)


def test_sources_that_cannot_be_loaded_are_named(tiny_pipeline_dir, tmp_path):
    with pytest.raises(DataMissing, match="no diffusion pipeline"):
        load_pipeline(tmp_path / "nowhere")
    with pytest.raises(DataMissing, match="not a diffusion pipeline"):
        load_pipeline(tmp_path)
    with pytest.raises(UserError, match="not pinned"):
        load_pipeline("owner/name")
    folder = shutil.copytree(tiny_pipeline_dir, tmp_path / "sd")
    shutil.rmtree(folder / "vae")
    with pytest.raises(DataMissing, match="no usable vae"):
        load_pipeline(folder)
