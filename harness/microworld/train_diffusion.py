"""Train the text encoder and the UNet of the small Stable Diffusion on latents of the web world."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from harness.core.files import atomic_path
from harness.microworld.captions import vocabulary
from harness.microworld.causes import SHAPES, WEB
from harness.microworld.tokenizer import CONTEXT_LENGTH, write_tokenizer
from harness.microworld.training import Averaged, Schedule, train, world_batch

LOG = logging.getLogger("harness.microworld")
_STREAM = 31
TEXT_WIDTH = 64
N_LATENTS = 24_000
SCHEDULE = Schedule(steps=10_000, batch=64, lr=1.2e-3, warmup=200, hold=0.7)
_DROP = 0.1  # share of examples trained without text, for guidance
_TEMPLATED = 0.2  # share of examples whose class name stands in a prompt template
_OBJECT_EMPHASIS = 3.0  # extra weight of the loss on the object: its texture is the hardest part of a picture
_SNR_CAP = 5.0  # min-SNR weighting, Hang et al., ICCV 2023


def new_scheduler() -> PNDMScheduler:
    """Return the scheduler of Stable Diffusion 1.5."""
    return PNDMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip


def new_unet() -> UNet2DConditionModel:
    """Build the untrained UNet: attention at 8 x 8 only, which is where it is cheap; 2.2 M parameters."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(48, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build the untrained text encoder: one layer of width 64."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH, num_hidden_layers=1, num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


@torch.no_grad()
def _latents(vae: AutoencoderKL, scratch: Path) -> dict[str, torch.Tensor]:
    """Return (or make and keep) scaled latents of web-world pictures, their classes and object masks."""
    path = scratch / "latents.pt"
    if path.exists():
        return dict(torch.load(path, weights_only=True))
    latents, classes, masks = [], [], []
    for start in range(0, N_LATENTS, 200):
        causes, rendered = world_batch(_STREAM, start, 200, WEB)
        images = torch.from_numpy(rendered.images) * 2 - 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mode = vae.encode(images).latent_dist.mode()
        latents.append(mode.float() * vae.config.scaling_factor)
        classes.append(torch.from_numpy(causes.shape))
        masks.append(F.avg_pool2d(torch.from_numpy(rendered.masks)[:, None], 4))
        if start % 4000 == 0:
            LOG.info("latents: %d of %d", start, N_LATENTS)
    kept = {"latents": torch.cat(latents), "classes": torch.cat(classes), "masks": torch.cat(masks)}
    with atomic_path(path) as temporary:
        torch.save(kept, temporary)
    return kept


def _prompts(classes: torch.Tensor, generator: torch.Generator) -> list[str]:
    """Return a prompt per example: the bare class name, at times in a template, at times nothing."""
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES
    chance = torch.rand(len(classes), generator=generator).tolist()
    choice = torch.randint(len(templates), (len(classes),), generator=generator).tolist()
    prompts = []
    for label, u, k in zip(classes.tolist(), chance, choice, strict=True):
        name = SHAPES[label]
        in_template = f"photo of {name}" if k % 4 == 0 else templates[k](name)
        prompts.append("" if u < _DROP else in_template if u < _DROP + _TEMPLATED else name)
    return prompts


class _Denoising:
    """The loss of one diffusion step."""

    def __init__(
        self, text: CLIPTextModel, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer,
        world: dict[str, torch.Tensor],
    ) -> None:  # fmt: skip
        self.text, self.unet, self.tokenizer = text, unet, tokenizer
        self.latents, self.classes = world["latents"], world["classes"]
        emphasis = 1 + _OBJECT_EMPHASIS * world["masks"]
        self.emphasis = emphasis / emphasis.mean()
        self.alphas = new_scheduler().alphas_cumprod

    def _embed(self, prompts: list[str]) -> torch.Tensor:
        different = sorted(set(prompts))
        tokens = self.tokenizer(different, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text(tokens)[0][[different.index(prompt) for prompt in prompts]]

    def loss(self, step: int) -> torch.Tensor:
        g = torch.Generator().manual_seed(step)
        index = torch.randint(len(self.latents), (SCHEDULE.batch,), generator=g)
        clean = self.latents[index]
        times = torch.randint(1000, (SCHEDULE.batch,), generator=g)
        noise = torch.randn(clean.shape, generator=g)
        alpha = self.alphas[times][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        text = self._embed(_prompts(self.classes[index], g))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = self.unet(noisy, times, text).sample
        snr = self.alphas[times] / (1 - self.alphas[times])
        weight = snr.clamp(max=_SNR_CAP) / snr
        error = (predicted.float() - noise).square() * self.emphasis[index]
        return (weight * error.mean((1, 2, 3))).mean()


def save_pipeline(
    vae: AutoencoderKL, text: CLIPTextModel, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer, folder: Path
) -> None:
    """Write a Stable Diffusion folder, weights in half precision, configurations in single."""
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=new_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    write_tokenizer(folder / "tokenizer", vocabulary())
    for path in folder.rglob("*.safetensors"):
        state = {key: value.half() for key, value in load_file(path).items()}
        save_file(state, path, metadata={"format": "pt"})


def train_diffusion(vae: AutoencoderKL, scratch: Path, destination: Path) -> None:
    """Train (or finish training) text encoder and UNet and write the pipeline's folder after each checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), vocabulary())
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    vae.requires_grad_(False)
    unet = new_unet()
    unet.set_attn_processor(AttnProcessor())  # on a CPU the fused attention's backward takes a third of a step
    modules: dict[str, Any] = {"text": new_text_encoder(tokenizer), "unet": unet}
    denoising = _Denoising(modules["text"], modules["unet"], tokenizer, _latents(vae, scratch))
    average = Averaged(modules, 0.998)
    smooth: dict[str, Any] = {"text": new_text_encoder(tokenizer), "unet": new_unet()}

    def write(step: int) -> None:
        average.copy_into(smooth)
        save_pipeline(vae, smooth["text"], smooth["unet"], tokenizer, destination)
        LOG.info("diffusion: pipeline of step %d written", step)

    train("diffusion", modules, SCHEDULE, denoising.loss, scratch, average=average, on_checkpoint=write)
    if not destination.exists():
        write(SCHEDULE.steps)
