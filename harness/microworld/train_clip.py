"""Train the two CLIPs and the quality scorer: open_clip models on the balanced world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from harness.microworld.captions import LEVELS, oracle_captions, vocabulary
from harness.microworld.causes import BALANCED, LIGHTS, SCENES, SHAPES, TEXTURES, WEATHERS
from harness.microworld.degrade import degrade_each
from harness.microworld.tokenizer import CONTEXT_LENGTH, write_tokenizer
from harness.microworld.training import Averaged, Schedule, train, world_batch, world_seeds

WIDTH = 64  # of the joint space; equals the text width of the diffusion model
FEATURE_NORM = 3.0  # mean length of image and text features: a component is of order 0.4
_STREAMS = {"base": 21, "large": 23, "quality": 25}
_IMAGE_TOWERS: dict[str, dict[str, Any]] = {
    "base": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
    "large": {"layers": [1, 1, 1, 1], "width": 12, "head_width": 64, "patch_size": None},
    "quality": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
}
SCHEDULES = {
    "base": Schedule(steps=1200, batch=96, lr=2e-3, weight_decay=0.02),
    "large": Schedule(steps=1600, batch=96, lr=2e-3, weight_decay=0.02),
    "quality": Schedule(steps=1000, batch=96, lr=2e-3, weight_decay=0.02),
}
_CAUSE_WORDS = {"shape": SHAPES, "texture": TEXTURES, "scene": SCENES, "light": LIGHTS, "weather": WEATHERS}
_CAUSE_SHARES = ("shape", "texture", "shape", "scene", "shape", "texture", "shape", "light", "shape", "weather")
_OPENINGS = ("", "", "photo of ", "photo of ", "a photo of a ", "a picture of a ")
_LEVEL_SENTENCES = (
    "{level} photo", "{level} photo", "a {level} photo", "{level} quality", "a photo of {level} quality",
    "the quality of the image is {level}", "{level} picture", "{level}",
)  # fmt: skip


def model_config(kind: str, vocabulary_size: int) -> dict[str, Any]:
    """Return the open_clip configuration of a model: base, large or quality."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": 64, **_IMAGE_TOWERS[kind]},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH, "vocab_size": vocabulary_size, "width": WIDTH, "heads": 4,
            "layers": 2, "hf_tokenizer_name": "local",
        },
    }  # fmt: skip


def save_clip(model: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write a folder that open_clip opens as `local-dir:`; weights in half precision."""
    write_tokenizer(folder, vocabulary())
    preprocess = {
        "size": [64, 64], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic",
        "resize_mode": "shortest",
    }  # fmt: skip
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=1))
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")


def _augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Degrade three pictures in ten mildly, so that the encoders also read generated pictures."""
    n = len(images)
    strengths = torch.rand(n, generator=generator) * 0.35
    strengths[torch.rand(n, generator=generator) < 0.7] = -1
    return degrade_each(images, strengths, generator)


def _contrastive_loss(logits: torch.Tensor, named: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the symmetric contrastive loss; identical captions are positives, other true captions do not count.

    Args:
        logits: (n, n) scaled cosines of image i and caption j.
        named: (n, 5) causes each caption names, -1 for none.
        values: (n, 5) true causes of each image.
    """
    same = (named[:, None] == named[None]).all(-1)
    true = ((named[None] == -1) | (named[None] == values[:, None])).all(-1)
    loss = torch.zeros(())
    for scores, ignored in ((logits, true & ~same), (logits.T, (true & ~same).T)):
        log_p = F.log_softmax(scores.masked_fill(ignored, -1e4), dim=1)
        weights = same.float() / same.sum(1, keepdim=True)
        loss = loss - (weights * log_p).sum(1).mean() / 2
    return loss


def _normalise(images: torch.Tensor) -> torch.Tensor:
    return ((images - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)


def _encode(model: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.encode_image(_normalise(images))
    return F.normalize(features.float(), dim=-1)


def _encode_text(model: Any, tokenize: Any, texts: list[str]) -> torch.Tensor:
    """Encode texts without the common padding at their end, which the causal text encoder cannot see anyway."""
    tokens = tokenize(texts)
    longest = int(tokens.argmax(1).max()) + 1
    hidden = model.token_embedding(tokens[:, :longest]) + model.positional_embedding[:longest]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:longest, :longest])
    ends = model.ln_final(hidden)[torch.arange(len(tokens)), tokens.argmax(1)]
    return F.normalize(ends @ model.text_projection, dim=-1)


def _clip_loss(model: Any, helper: torch.nn.Linear, tokenize: Any, kind: str, step: int) -> torch.Tensor:
    """Return the contrastive loss over captions of several causes plus two that make every cause count.

    In whole captions the scene and the light tell most pictures of a batch apart, and training stays in that easy
    solution: the shape is never learnt. Captions of one cause alone (their identical ones are positives too) and
    a linear helper that reads all causes from the image feature, and is thrown away, lead out of it.
    """
    batch = SCHEDULES[kind].batch
    causes, rendered = world_batch(_STREAMS[kind], step * batch, batch, BALANCED)
    captions = oracle_captions(causes, world_seeds(_STREAMS[kind], step * batch, batch))
    generator = torch.Generator().manual_seed(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feature = model.encode_image(_normalise(_augment(torch.from_numpy(rendered.images), generator))).float()
    image = F.normalize(feature, dim=-1)
    text = _encode_text(model, tokenize, [caption.text for caption in captions])
    values = np.stack([causes.shape, causes.texture, causes.scene, causes.light, causes.weather], 1)
    named = torch.tensor([caption.named for caption in captions])
    scale = model.logit_scale.exp().clamp(max=100)
    loss = _contrastive_loss(scale * image @ text.T, named, torch.from_numpy(values))
    cause = _CAUSE_SHARES[step % len(_CAUSE_SHARES)]
    opening = _OPENINGS[int(torch.randint(len(_OPENINGS), (1,), generator=generator))]
    words = _encode_text(model, tokenize, [opening + word for word in _CAUSE_WORDS[cause]])
    loss = loss + F.cross_entropy(scale * image @ words.T, torch.from_numpy(getattr(causes, cause)))
    heads = helper(feature).split([len(words) for words in _CAUSE_WORDS.values()], dim=1)
    for name, head in zip(_CAUSE_WORDS, heads, strict=True):
        loss = loss + 0.5 * F.cross_entropy(head, torch.from_numpy(getattr(causes, name)))
    return loss


def _quality_loss(model: Any, tokenize: Any, step: int) -> torch.Tensor:
    """Return the cross-entropy of a picture's level among five level prompts, with soft levels.

    The undamaged picture is excellent; strengths from 0 to 1 slide over the four levels below.
    """
    batch = SCHEDULES["quality"].batch
    _, rendered = world_batch(_STREAMS["quality"], step * batch, batch, BALANCED)
    generator = torch.Generator().manual_seed(step)
    strengths = torch.rand(batch, generator=generator)
    strengths[torch.rand(batch, generator=generator) < 0.3] = -1
    images = degrade_each(torch.from_numpy(rendered.images), strengths, generator)
    place = torch.where(strengths < 0, 0.0, 0.7 + 3.3 * strengths)  # position on the scale excellent .. bad
    target = (1 - (place[:, None] - torch.arange(5.0)).abs()).clamp(min=0)
    template = _LEVEL_SENTENCES[int(torch.randint(len(_LEVEL_SENTENCES), (1,), generator=generator))]
    text = _encode_text(model, tokenize, [template.format(level=level) for level in LEVELS])
    logits = model.logit_scale.exp().clamp(max=100) * _encode(model, images) @ text.T
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


def train_clip(kind: str, scratch: Path, destination: Path) -> None:
    """Train (or finish training) one model and write its folder."""
    torch.manual_seed(0)
    size = write_tokenizer(scratch / "tokenizer", vocabulary())
    config = model_config(kind, size)
    model = open_clip.CLIP(**config).to(memory_format=torch.channels_last)
    helper = torch.nn.Linear(WIDTH, sum(len(words) for words in _CAUSE_WORDS.values()))
    tokenize = open_clip.tokenizer.HFTokenizer(str(scratch / "tokenizer"), context_length=CONTEXT_LENGTH)
    average = Averaged({kind: model}, 0.995)

    def loss_of(step: int) -> torch.Tensor:
        model.train()
        if kind == "quality":
            return _quality_loss(model, tokenize, step)
        return _clip_loss(model, helper, tokenize, kind, step)

    trained = {kind: model} if kind == "quality" else {kind: model, "helper": helper}
    train(f"clip_{kind}", trained, SCHEDULES[kind], loss_of, scratch, average=average)
    average.copy_into({kind: model})
    _settle_batch_norm(model, kind)
    if kind != "quality":
        settle_scale(model, kind, tokenize)
    save_clip(model, config, destination)


@torch.no_grad()
def _settle_batch_norm(model: Any, kind: str, batches: int = 20) -> None:
    """Measure the batch statistics anew: the averaged weights never saw those of the last steps."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over what follows
    model.train()
    for k in range(batches):
        _, rendered = world_batch(_STREAMS[kind] + 1, k * 128, 128, BALANCED)
        generator = torch.Generator().manual_seed(k)
        images = torch.from_numpy(rendered.images)
        if kind == "quality":
            strengths = torch.rand(128, generator=generator) * 1.4 - 0.4
            images = degrade_each(images, strengths, generator)
        else:
            images = _augment(images, generator)
        model.encode_image(_normalise(images))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()


@torch.no_grad()
def settle_scale(model: Any, kind: str, tokenize: Any) -> None:
    """Make image and text features equally long on average, in place; cosines do not change.

    lbGen's discriminator reads features that are not normalised. Trained from cosines alone, a small encoder may make image
    features three times as long as text features: then length alone tells them apart, and the cosine's gradient
    (inverse to the length) is lost beside the discriminator's.
    """
    _, rendered = world_batch(_STREAMS[kind] + 1, 0, 128, BALANCED)
    images = model.encode_image(_normalise(torch.from_numpy(rendered.images)))
    texts = model.encode_text(tokenize(class_prompts()))
    last = model.visual.attnpool.c_proj if kind == "large" else model.visual.head.proj
    for weight in last.parameters():
        weight.mul_(FEATURE_NORM / images.norm(dim=-1).mean())
    model.text_projection.mul_(FEATURE_NORM / texts.norm(dim=-1).mean())


def class_prompts() -> list[str]:
    """Return the zero-shot prompt of every class."""
    return [f"photo of {name}" for name in SHAPES]
