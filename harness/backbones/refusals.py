"""Why the weights of a file are not those of the network that was named, and what helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.backbones.files import Inert
from harness.backbones.matching import COUNTER, Candidate, Network, body_of, candidates, head_of
from harness.backbones.models import create, size_arguments
from harness.backbones.preprocessing import SMALL_NETWORKS, in_words, of_timm
from harness.core.errors import UserError
from harness.core.normalisation import KNOWN
from harness.core.weights import check_state

FIX = (
    "name the --arch that these weights were made for: the names and shapes of all its tensors must agree with the file"
)
REST = "save the state dict of this network alone, without what the training kept beside it, or name the --arch that has these parts"
_TORCHVISION = "--classifier harness.classifiers:torchvision --set classifier.weights=FILE --set classifier.arch=NAME"
_TRANSFORMERS = "--classifier harness.classifiers:transformers --set classifier.folder=FOLDER"
_OPEN_CLIP = "--classifier harness.classifiers:open_clip --set classifier.model=NAME --set classifier.weights=FILE"
_OWN = "--classifier MODULE:FUNCTION measures what a function of yours loads (docs/checkpoints.md)"
_FOREIGN = (
    (r"(^|\.)visual\.(conv1|transformer|trunk|layer1)|^logit_scale$", "a CLIP model of images and texts", _OPEN_CLIP),
    (r"\.attention\.attention\.query\.|(^|\.)embeddings\.patch_embeddings\.|\.embedder\.embedder\.", "a network of transformers",
     f"give its folder with config.json: {_TRANSFORMERS}"),
    (r"(^|\.)features\.\d+\.\d+\.|^features\.\d+\.(weight|bias)$|^encoder\.layers\.encoder_layer_|\.self_attention\.in_proj_",
     "torchvision's own network, whose names differ from timm's", f"measure it by torchvision's code: {_TORCHVISION}"),
    (r"\.in_proj_weight$|(^|\.)layers\.\d+\.(ln1|attn\.proj)|patch_embed\.projection\.", "mmpretrain's own network, whose names "
     "differ from timm's", _OWN),
    (r"_packed_params|\.zero_point$", "a quantised network", _OWN),
)  # fmt: skip
"""Pattern of names -> whose they are, and the option that helps. Tried when timm's network does not fit."""
_OUTPUTS = {
    21841: "ImageNet-21k in full",
    21843: "ImageNet-21k as Google's networks list it",
    11221: "ImageNet-21k-P",
    11821: "the classes of ImageNet-12k",
    1001: "a background class before the thousand of ImageNet",
    9: "the nine categories of ImageNet-9",
    18291: "ImageNet-22k without the classes of fewer images",
}
_LIKE = 0.006
"""What published means of ImageNet differ by, of pixels in [0, 1]."""
_NETWORK = re.compile(r"model|net|state_dict|ema|student|teacher|module|encoder|backbone")
_FAMILY = {
    "resnet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet10", "resnet26", "resnet50d", "wide_resnet50_2",
               "resnext50_32x4d"),
    "vit": ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224",
            "vit_small_patch32_224", "vit_base_patch32_224", "vit_small_patch14_dinov2", "vit_base_patch14_dinov2",
            "deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224", "deit_tiny_distilled_patch16_224",
            "deit_small_distilled_patch16_224", "deit_base_distilled_patch16_224", "vit_small_patch8_224", "vit_base_patch8_224"),
    "convnext": ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "convnextv2_tiny", "convnextv2_base"),
}  # fmt: skip
"""Relatives that are tried for a suggestion, by the beginning of the name."""


def refuse_misfit(
    path: Path, content: Mapping[str, Any], arch: str, network: Network, found: Sequence[Candidate], weights: str | None
) -> None:
    """Raise the true reason why no place of a file holds the whole network; `found` is the place that comes nearest.

    Raises:
        UserError: always.
    """
    if not found:
        whole = [key for key, value in content.items() if isinstance(value, Inert) and _NETWORK.search(str(key))]
        if whole:
            raise UserError(
                f"{path} holds a whole network under {whole[0]!r}, not its weights",
                f"only the code of {type(content[whole[0]]).__name__} could rebuild it, and no code of a file is run",
                f"save the weights where that code is: torch.save(content[{whole[0]!r}].state_dict(), ...); or {_OWN}",
            )
        raise UserError(
            f"{path} holds no weights",
            f"it has no tensors but those of an optimiser; its entries: {', '.join(map(str, list(content)[:8])) or 'none'}",
            "give the file that holds the network's state dict",
        )
    nearest = found[0]
    if any("Sharded" in type(one).__name__ or "DTensor" in type(one).__name__ for one in nearest.tensors.values()):
        raise UserError(
            f"{path} holds one shard of the weights",
            "its tensors are parts of a distributed training",
            "save the full state dict: torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True",
        )
    _refuse_size(path, arch, network, nearest)
    if other := _fitting(content, arch):
        raise UserError(
            f"{path} does not hold a {arch}",
            f"its tensors are those of {' or '.join(other)}: {_difference(network, nearest)}",
            f"write --arch {' or '.join(_with_mean(name) for name in other)}: the name that the weights were trained under",
        )
    for pattern, whose, fix in _FOREIGN:
        if any(re.search(pattern, key) for key in nearest.tensors):
            raise UserError(f"{path} does not hold timm's {arch}", f"its tensors have the names of {whose}", fix)
    taken = {name: nearest.at(name) for name in network.body if nearest.prefix + name in nearest.tensors}
    rest = {
        key: value for key, value in nearest.tensors.items() if key.removeprefix(nearest.prefix) not in network.body
    }
    body = {name: value for name, value in network.body.items() if not name.endswith(COUNTER) or name in taken}
    spare = set(head_of(nearest, network).values())
    check_state({**taken, **{key: value for key, value in rest.items() if key not in spare}}, body, path, FIX)
    raise UserError(f"{path} does not hold a {arch}", "its tensors do not fit", FIX)


def _refuse_size(path: Path, arch: str, network: Network, nearest: Candidate) -> None:
    """Refuse a transformer whose position embedding alone is of another size."""
    held = {name: nearest.tensors.get(nearest.prefix + name) for name in network.wanted}
    odd = [name for name, value in held.items() if value is None or value.shape != network.body[name].shape]
    if odd and all(name.endswith("pos_embed") for name in odd) and (value := held[odd[0]]) is not None:
        raise UserError(
            f"{path} was trained on images of another size",
            f"its {odd[0]} has the shape {tuple(value.shape)}, {arch} at this size wants {tuple(network.body[odd[0]].shape)}",
            "leave --image-size out, so that the size follows from the file; position embeddings are never interpolated",
        )


def _difference(network: Network, nearest: Candidate) -> str:
    held = sum(nearest.prefix + name in nearest.tensors for name in network.wanted)
    return f"{held} of {len(network.wanted)} names agree"


def _with_mean(arch: str) -> str:
    """Return an architecture with the mean that its name implies: relatives of equal tensors differ in their inputs."""
    stated = None if arch in SMALL_NETWORKS else of_timm(arch)
    return f"{arch} ({in_words('mean', stated[1]['mean'])})" if stated else arch


def _fitting(content: Mapping[str, Any], arch: str) -> list[str]:
    """Return relatives of an architecture whose tensors a file holds."""
    family = next((names for start, names in _FAMILY.items() if arch.removeprefix("wide_").startswith(start)), ())
    if arch.startswith("deit"):
        family = tuple(sorted(_FAMILY["vit"], key=lambda name: not name.startswith("deit")))
    return [
        name
        for name in family
        if name != arch and any(one.complete for one in candidates(content, body_of(name, size_arguments(name, 224))))
    ]


def refuse_count(path: Path, outputs: int, listed: int) -> UserError:
    """Return the error of a head whose number of outputs is not that of the class list."""
    known = f" ({_OUTPUTS[outputs]})" if outputs in _OUTPUTS else ""
    fix = "give the ordered list of the classes the network was trained on with --classes"
    if outputs in _OUTPUTS:
        fix += f": a file of {outputs:,} lines, one id a line, in the head's order"
    if outputs == 1001:
        fix += ", the first of them 'background'"
    return UserError(
        f"the class list does not fit {path}",
        f"the checkpoint has {outputs} outputs{known}, the list {listed} classes",
        fix,
    )


def refuse_sequence(path: Path, layers: Sequence[str]) -> UserError:
    """Return the error of a head that is a sequence of layers."""
    alone = f"if that is dropout alone, give the layer by itself: --head {path}; else {_OWN}"
    return UserError(
        f"the head in {path} is a sequence of layers",
        f"it lies under {', '.join(layers)}; what stands before or between has no weights, so the file does not say what it is",
        alone if len(layers) == 1 else _OWN,
    )


def refuse_choice(path: Path, found: Iterable[Candidate]) -> UserError:
    """Return the error of a file that holds several networks, of which no rule takes one."""
    names = [one.name or "(top level)" for one in found]
    return UserError(
        f"{path} holds several networks that fit",
        f"their weights differ: {', '.join(names)}",
        f"name one of them, e.g. --weights {names[0]}",
    )


def refuse_weights(path: Path, weights: str, found: Iterable[Candidate]) -> UserError:
    """Return the error of weights that were asked for and are not in the file."""
    names = [f"{one.name or '(top level)'} ({'ema' if one.averaged else 'raw'})" for one in found]
    return UserError(
        f"{path} holds no {weights} weights",
        f"the networks in it: {', '.join(names)}",
        "leave --weights out to take what there is, or name one of these",
    )


def refuse_doubtful(path: Path, chosen: Candidate, kind: str) -> None:
    """Refuse an average that holds no weights yet, and a network of which two tensors claim one name.

    Raises:
        UserError: one of the two.
    """
    if kind == "ema" and chosen.untouched:
        raise UserError(
            f"the average in {path} was never updated",
            f"its counter n_averaged under {chosen.name or 'the top level'} is 0: these are the weights at the start of the training",
            "take the raw weights with --weights raw",
        )
    if chosen.clashes:
        raise UserError(
            f"{path} holds two tensors for one name",
            f"{', '.join(chosen.clashes[:3])} differs from the tensor of this name without, or with, another wrapper",
            "save the state dict of one network: torch.save(model.state_dict(), ...)",
        )


def refuse_unusable(path: Path, state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that torch would load, and that are not the network's.

    Args:
        path: The file, for messages.
        state: Tensors under the network's own names.
        wanted: The network's ``state_dict()``.

    Raises:
        UserError: a tensor holds NaN or an infinite value, whole or complex numbers in the place of weights, or negative variances.
    """
    cast = [name for name, value in state.items() if wanted[name].is_floating_point() and not value.is_floating_point()]
    if cast:
        kind = str(state[cast[0]].dtype).removeprefix("torch.")
        raise UserError(
            f"{path} holds {kind} in the place of weights",
            f"{len(cast)} of {len(state)} tensors are no floats: {', '.join(cast[:3])}; the scale of a quantised tensor is not in it",
            f"save the weights as floats where their scale is known; or {_OWN}",
        )
    negative = [
        name for name, value in state.items() if name.endswith("running_var") and bool((value.float() < 0).any())
    ]
    if negative:
        raise UserError(
            f"{path} holds negative variances",
            f"{len(negative)} batch norms have them: {', '.join(negative[:3])}; their root is no number",
            "take another checkpoint: this one is damaged, or its names are of other tensors",
        )
    odd = [name for name, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if odd:
        raise UserError(
            f"{path} holds weights that are no numbers",
            f"{len(odd)} of {len(state)} tensors hold NaN or infinite values: {', '.join(odd[:3])}",
            "take a checkpoint from before the training diverged",
        )


def refuse_blue_first(path: Path, mean: Sequence[float]) -> None:
    """Refuse a normaliser whose mean is ImageNet's in the order blue, green, red.

    Raises:
        UserError: it is.
    """
    if all(abs(value - known) < _LIKE for value, known in zip(mean, KNOWN["imagenet"][0][::-1], strict=True)):
        raise UserError(
            f"the normaliser in {path} takes blue first",
            f"its mean {', '.join(f'{value:.3f}' for value in mean)} is ImageNet's in the order blue, green, red; images are fed as red, "
            "green, blue here",
            _OWN,
        )


def size_of(content: Mapping[str, Any], arch: str, image_size: int, arguments: Mapping[str, Any]) -> int:
    """Return the side in pixels that the position embedding of a plain transformer implies; `image_size` if it implies none.

    Args:
        content: What `files.read_checkpoint` returned.
        arch: Architecture name.
        image_size: Side in pixels that is known otherwise.
        arguments: Other constructor arguments, such as the side of its patches.
    """
    if not size_arguments(arch, image_size):
        return image_size
    kwargs = {**arguments, **size_arguments(arch, image_size)}
    with torch.device("meta"):
        model: Any = create(arch, 0, **kwargs)
    network = body_of(arch, kwargs)
    for one in candidates(content, network):
        held, wanted = one.tensors.get(f"{one.prefix}pos_embed"), network.body.get("pos_embed")
        if held is None or wanted is None or held.ndim != 3 or held.shape[2] != wanted.shape[2]:
            continue
        extra = wanted.shape[1] - model.patch_embed.num_patches
        side = round((held.shape[1] - extra) ** 0.5)
        if held.shape != wanted.shape and side * side == held.shape[1] - extra and side:
            return int(side * (image_size // model.patch_embed.grid_size[0]))
    return image_size
