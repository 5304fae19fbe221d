"""A checkpoint file from outside as something that can be planned: its preprocessing with origins, its classes, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones.folders import CONFIG, Source, find_source
from harness.backbones.labels import check_labels, check_labels_in
from harness.backbones.preprocessing import BACKBONE, OPTIONS, Layer, Resolved, backbone_facts, base_name, resolve
from harness.core.classes import ClassList, load_classes
from harness.core.errors import DataMissing, UserError
from harness.plan.model import ExternalCheckpoint
from harness.plan.profile import Profile

if TYPE_CHECKING:
    from harness.backbones.outside import Taken


def external_checkpoint(
    profile: Profile,
    checkpoint: str,
    arch: str,
    classes: str,
    chosen: Mapping[str, Any],
    weights: str | None = None,
    options: Mapping[str, str] = OPTIONS,
    head: str = "",
) -> ExternalCheckpoint:
    """Return a checkpoint with how images reach it. The file is opened: what does not fit is refused before any work begins.

    Args:
        profile: Its recipe for the architecture is asked where neither the user nor the network states a value.
        checkpoint: A file or a model folder, see `find_source`.
        arch: Architecture, of timm with or without a tag; may be empty for a model folder.
        classes: Class list of the head, a shipped name or a file.
        chosen: What the user chose, by name of ``Preprocessing``.
        weights: ``raw``, ``ema`` or a place in the file; None takes the average if the file keeps one.
        options: Name of ``Preprocessing`` to how the user spells it, for messages.
        head: File of a linear head; empty if there is none.

    Raises:
        DataMissing: the file does not exist.
        UserError: it is no checkpoint, or does not hold the architecture with these classes; or the backbone folder that it
            lies in states another architecture, class list or kind of weights.
    """
    source = find_source(checkpoint, arch)
    path, recipe = source.path, recipe_for(profile, source.arch)
    feed = resolve(source.arch, path, chosen, recipe, stated=source.stated, options=options)
    if not path.is_file():
        raise DataMissing(f"checkpoint {path} does not exist", "no such file", "correct --checkpoint")
    listed = load_classes(classes)
    check_labels(f"{CONFIG} of {checkpoint}", source.labels, listed)
    _same_classes(path, classes)
    weights = _weights(path, weights)
    head_file = Path(head).expanduser().resolve() if head else None
    if head_file is not None and not head_file.is_file():
        raise DataMissing(f"head {head_file} does not exist", "no such file", "correct --head")
    taken, inside = _open(source, listed, feed, chosen, weights, head_file)
    if inside is not None:
        feed = resolve(source.arch, path, chosen, recipe, stated=source.stated, inside=inside, options=options)
    return ExternalCheckpoint(
        path,
        base_name(source.arch),
        classes,
        feed.values,
        weights,
        notes=(feed.line, *taken.notes),
        warnings=feed.warnings,
        name=source.name,
        arguments=source.arguments,
        features_only=not taken.outputs,
        head=head_file,
    )


def _open(
    source: Source, listed: ClassList, feed: Resolved, chosen: Mapping[str, Any], weights: str | None, head: Path | None
) -> tuple[Taken, Layer | None]:
    """Return what the import will take from a file, and what the weights themselves say of their inputs."""
    from harness.backbones.configs import stated_in
    from harness.backbones.files import read_checkpoint
    from harness.backbones.models import size_arguments
    from harness.backbones.outside import take
    from harness.backbones.refusals import size_of

    arch, size, content = base_name(source.arch), feed.values.image_size, read_checkpoint(source.path)
    implied = size if "image_size" in chosen else size_of(content, arch, size, source.arguments)
    arguments = {**source.arguments, **size_arguments(arch, implied)}
    taken = take(source.path, content, arch, len(listed), weights, arguments, head)
    if taken.outputs:
        owner = head or source.path
        check_labels_in(owner, read_checkpoint(head) if head else content, listed, taken.outputs)
    said = stated_in(source.path, content, "mean" in chosen or taken.normaliser is not None)
    said |= {} if implied == size else {"image_size": implied}
    if taken.normaliser is not None:
        said |= dict(zip(("mean", "std"), taken.normaliser, strict=True))
    return taken, ("the file itself", said) if said else None


def _weights(path: Path, weights: str | None) -> str | None:
    """Return which weights a file is asked for, considering what a backbone folder says of it.

    Raises:
        UserError: the folder says that it holds others.
    """
    held = path.stem if backbone_facts(path) is not None else None
    if weights and held and weights != held:
        raise UserError(
            f"--weights {weights} is not what {path.name} holds",
            f"{BACKBONE} beside it says that these are the {held} weights",
            f"leave --weights out, or give {weights}.safetensors",
        )
    return weights or held


def recipe_for(profile: Profile, arch: str) -> dict[str, Any]:
    """Return what the profile's recipe for an architecture says of its inputs; empty if the profile does not train it."""
    if arch not in profile.backbones:
        return {}
    from harness.backbones.recipe import PretrainSettings

    values = {key: value for key, value in profile.backbones[arch].items() if key not in ("devices", "threads")}
    recipe = PretrainSettings.from_mapping({"arch": arch, **values})
    return {"mean": recipe.mean, "std": recipe.std, "image_size": recipe.image_size}


def _same_classes(path: Path, classes: str) -> None:
    """Refuse a class list that contradicts the backbone folder in which a file lies.

    Raises:
        UserError: the folder lists other classes, or another order.
    """
    facts = backbone_facts(path)
    if facts is not None and facts["classes"] and tuple(facts["classes"]) != load_classes(classes).ids:
        raise UserError(
            f"--classes {classes} is not the class list of {path.name}",
            f"{BACKBONE} beside it lists {len(facts['classes'])} classes, {', '.join(facts['classes'][:3])}, ...",
            "give the list it was trained with, in its order",
        )
