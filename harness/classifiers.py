"""Classifiers whose networks only another library builds, for ``--classifier harness.classifiers:NAME``.

Each reads files of this machine. The settings are the parameters, ``--set classifier.NAME=VALUE``; what is not given is said to be a
default. A classifier is known by the hash of its weights, so that a tag that comes to name others is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.backbones.files import read_checkpoint
from harness.backbones.loaded import ClassifierSpec
from harness.core.classes import ClassList
from harness.core.errors import DataMissing, UserError
from harness.core.files import read_json, read_text

TEMPLATES = ("a photo of a {}.",)
_MODES = {"shortest": "center", "squash": "squash"}
"""open_clip's ``resize_mode`` by timm's ``crop_mode``; the third, ``longest``, pads to a square."""
_CLASSIFIERS = ("ForImageClassification", "ForImageClassificationWithTeacher")
"""How transformers' classes of networks with logits of images end; the second averages its two heads."""
_OWN_INPUTS = ("googlenet", "inception_v3")
"""Networks of torchvision whose published weights were trained on inputs in [-1, 1]; their constructors know both."""


class ZeroShot(torch.nn.Module):
    """Compare images with one text embedding per class, as CLIP does (Radford et al., ICML 2021, section 3.1.2).

    Args:
        clip: A model of open_clip.
        text: Unit embeddings of the classes, (K, d).
    """

    def __init__(self, clip: torch.nn.Module, text: torch.Tensor) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("text", text)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return cosine similarities times the model's scale, (B, K), of normalised images (B, 3, H, W)."""
        features: torch.Tensor = self.clip.encode_image(images, normalize=True)  # type: ignore[operator]
        scale: torch.Tensor = self.clip.logit_scale.exp()  # type: ignore[operator]
        return scale * features @ self.text.T  # type: ignore[operator]


class Logits(torch.nn.Module):
    """Take the logits out of what a network of transformers returns.

    Args:
        network: The network.
        flipped: Whether it takes blue, green, red.
    """

    def __init__(self, network: torch.nn.Module, flipped: bool = False) -> None:
        super().__init__()
        self.network, self.flipped = network, flipped

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K)."""
        found: torch.Tensor = self.network(pixel_values=images.flip(1) if self.flipped else images).logits
        return found


def open_clip(
    classes: ClassList, model: str, weights: str = "", templates: Sequence[str] = TEMPLATES, names: str = ""
) -> ClassifierSpec:
    """Return a zero-shot classifier of open_clip.

    The embedding of a class is the mean of the unit embeddings of its prompts, made a unit again.

    Args:
        classes: The classes; their names go into the templates.
        model: ``local-dir:FOLDER``, or an architecture of open_clip with ``weights``.
        weights: A file of weights, or a tag of open_clip; empty for a folder.
        templates: Prompts with ``{}`` in the place of the name.
        names: Text file of one name a line, in the order of the classes; empty: the names of the class list.

    Raises:
        UserError: a template has no ``{}``, the names do not fit the classes, or the weights do not fit the model.
    """
    import open_clip as library

    from harness.backbones.refusals import refuse_unusable
    from harness.core.clip_files import find_clip
    from harness.core.weights import create_open_clip

    texts = [templates] if isinstance(templates, str) else list(templates)
    if not texts or any("{}" not in template for template in texts):
        raise UserError(
            f"the templates {texts} have no place for a name", "each needs {}", "write e.g. a photo of a {}."
        )
    listed = _names(names, classes)
    network = create_open_clip(model, weights or None).eval()
    refuse_unusable(Path(weights or model), network.state_dict(), network.state_dict())
    tokenizer = library.get_tokenizer(model)
    rows = []
    with torch.no_grad():
        for name in listed:
            prompts = tokenizer([template.replace("{}", name) for template in texts])
            mean = network.encode_text(prompts, normalize=True).mean(0)
            rows.append(mean / mean.norm())
    visual, cfg = network.visual, getattr(network.visual, "preprocess_cfg", {})
    size = visual.image_size[0] if isinstance(visual.image_size, tuple | list) else visual.image_size
    return ClassifierSpec(
        ZeroShot(network, torch.stack(rows)).eval(),
        name=f"zero-shot-{model.rstrip('/').rpartition('/')[2].rpartition(':')[2]}",
        mean=tuple(visual.image_mean),
        std=tuple(visual.image_std),
        image_size=int(size),
        interpolation=cfg.get("interpolation", "bicubic"),
        crop=1.0,
        crop_mode=_MODES.get(cfg.get("resize_mode") or "shortest", "border"),
        origin=find_clip(model, weights or None).origin,
        facts={
            "templates": texts,
            "names": Path(names).name if names else f"class list {Path(classes.name).name}",
            "names_hash": hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16],
        },
    )


def _names(file: str, classes: ClassList) -> list[str]:
    if not file:
        return list(classes.names)
    try:
        lines = [
            line.strip() for line in read_text(Path(file).expanduser(), "save it as UTF-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the names in {file} cannot be read", str(error), "give a text file in UTF-8") from error
    if len(lines) != len(classes):
        raise UserError(
            f"{file} does not fit the class list",
            f"it has {len(lines)} names, the list {len(classes)} classes",
            "one name a line",
        )
    return lines


def torchvision(
    classes: ClassList, arch: str, weights: str, recipe: str = "", transform_input: bool = True
) -> ClassifierSpec:
    """Return a classifier of torchvision with weights of a file.

    Args:
        classes: The classes of its head.
        arch: Name of the network, such as ``swin_t``.
        weights: The file, in any form that ``--checkpoint`` reads.
        recipe: Which of torchvision's published weights states the inputs, such as ``IMAGENET1K_V1``; they differ in resize. Empty: the
            one whose file has this name (``resnet50-0676ba61.pth``), else ``DEFAULT``.
        transform_input: Of ``googlenet`` and ``inception_v3``: whether the network turns ImageNet's normalisation into that of
            its training, as it does with the published weights. A network trained without them does not.

    Raises:
        UserError: torchvision has no such network or recipe, or the weights do not fit.
    """
    from torchvision import models

    from harness.backbones.outside import load_into
    from harness.core.names import did_you_mean

    if arch not in models.list_models():
        hint = did_you_mean(arch, models.list_models())
        raise UserError(
            f"torchvision has no {arch!r}",
            "it is none of its networks",
            f"{hint}torchvision.models.list_models() names all",
        )
    published: Any = models.get_model_weights(arch)
    recipe, origin = _recipe(published, arch, Path(weights), recipe)
    stated = published[recipe].transforms()
    size, resized = stated.crop_size[0], stated.resize_size[0]
    options: dict[str, Any] = {"image_size": size} if arch.startswith("vit_") else {}
    own = {"transform_input": bool(transform_input)} if arch in _OWN_INPUTS else {}
    if own:
        options = {**own, "init_weights": False}
    network = models.get_model(arch, weights=None, num_classes=len(classes), **options)
    fix = "name the classifier.arch of these weights"
    fix += f"; sizes differ by classifier.recipe: {_sizes(published)}" if len(published) > 1 else ""
    load_into(network, Path(weights).expanduser(), f"torchvision's {arch}", classes, fix)
    return ClassifierSpec(
        network.eval(),
        name=arch,
        mean=tuple(stated.mean),
        std=tuple(stated.std),
        image_size=size,
        interpolation=stated.interpolation.value,
        crop=size / resized,
        origin=origin,
        facts={"inputs": f"torchvision {arch} {recipe}", **own},
    )


def _recipe(published: Any, arch: str, weights: Path, recipe: str) -> tuple[str, str]:
    """Return which of torchvision's recipes states the inputs of a file, and in words why.

    Raises:
        UserError: torchvision has no such recipe, or the file is that of another one.
    """
    if recipe and recipe not in published.__members__:
        raise UserError(
            f"torchvision has no weights {recipe!r} of {arch}",
            f"it has {', '.join(published.__members__)}",
            "name one of these",
        )
    named = next((one.name for one in published if one.url.rpartition("/")[2] == weights.name), "")
    if recipe and named and published[recipe] is not published[named]:
        raise UserError(
            f"{weights.name} is not {recipe} of {arch}",
            f"torchvision publishes {named} under this name, whose inputs may differ",
            f"leave classifier.recipe out, or write classifier.recipe={named}; rename the file if it holds other weights",
        )
    if recipe:
        return recipe, f"torchvision's {arch} {recipe}"
    if named:
        return named, f"torchvision's {arch} {named}, by the name of the file"
    return (
        "DEFAULT",
        f"torchvision's {arch} {published['DEFAULT'].name}, by default: recipes {_sizes(published)} (classifier.recipe)",
    )


def _sizes(published: Any) -> str:
    """Return recipes of torchvision with their sizes: ``IMAGENET1K_V1 (256 to 224 px)``."""
    inputs = ((one.name, one.transforms()) for one in published)
    return ", ".join(f"{name} ({found.resize_size[0]} to {found.crop_size[0]} px)" for name, found in inputs)


def transformers(classes: ClassList, folder: str) -> ClassifierSpec:
    """Return an image classifier of transformers from its folder (``config.json``, weights, ``preprocessor_config.json``).

    Args:
        classes: The classes of its head, in the head's order.
        folder: The folder.

    Raises:
        DataMissing: a file of it does not exist.
        UserError: the head has another number of outputs, the weights do not fit, or its image processor does what is not followed.
    """
    from transformers import AutoModelForImageClassification

    from harness.backbones.labels import check_labels, in_order
    from harness.backbones.processors import inputs_of
    from harness.backbones.refusals import refuse_unusable
    from harness.core.weights import load_pretrained

    place = Path(folder).expanduser()
    for name in ("config.json", "preprocessor_config.json"):
        if not (place / name).is_file():
            raise DataMissing(
                f"{folder} is no whole folder of transformers", f"{name} does not exist", "fetch it: hf download NAME"
            )
    config = read_json(place / "config.json", "fetch it again: hf download NAME")
    kind = _class_of(config, AutoModelForImageClassification)
    network = load_pretrained(kind, place, local_files_only=True)
    state = network.state_dict()
    refuse_unusable(place, {**state, **_cast(place, state)}, state)
    if network.config.num_labels != len(classes):
        raise UserError(
            f"the class list does not fit {folder}",
            f"the head has {network.config.num_labels} outputs, the list {len(classes)} classes",
            "give the ordered list of the classes the network was trained on with --classes",
        )
    check_labels(f"config.json of {folder}", in_order(config.get("id2label")) or (), classes)
    fed = inputs_of(place)
    return ClassifierSpec(
        Logits(network.eval(), fed.flipped).eval(),
        name=place.name,
        mean=fed.mean,
        std=fed.std,
        image_size=fed.image_size,
        interpolation=fed.interpolation,
        crop=fed.crop,
        crop_mode=fed.crop_mode,
    )


def _cast(place: Path, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a folder that are no floats and that transformers has cast to the network's floats, by name."""
    files = [path for pattern in ("model*.safetensors", "pytorch_model*.bin") for path in sorted(place.glob(pattern))]
    return {
        name: value
        for path in files
        for name, value in read_checkpoint(path).items()
        if isinstance(value, torch.Tensor)
        and name in state
        and not value.is_floating_point()
        and state[name].is_floating_point()
    }


def _class_of(config: dict[str, Any], auto: Any) -> Any:
    """Return the class that a configuration names, so that its weights are loaded strictly.

    Raises:
        UserError: it names none for image classification.
    """
    import transformers as library

    named = [name for name in config.get("architectures") or () if name.endswith(_CLASSIFIERS)]
    if not named:
        raise UserError(
            f"a {config.get('model_type', 'network')} without a head of classes",
            f"config.json names {', '.join(config.get('architectures') or ()) or 'no architecture'}",
            "give a folder whose architecture ends with ForImageClassification",
        )
    return getattr(library, named[0], auto)
