"""A checkpoint file from outside as something that can be planned: its preprocessing with origins, its classes, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.backbones.preprocessing import BACKBONE, OPTIONS, backbone_facts, base_name, resolve
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.plan.model import ExternalCheckpoint
from harness.plan.profile import Profile


def external_checkpoint(
    profile: Profile,
    path: Path,
    arch: str,
    classes: str,
    chosen: Mapping[str, Any],
    weights: str | None = None,
    options: Mapping[str, str] = OPTIONS,
) -> ExternalCheckpoint:
    """Return a checkpoint file with how images reach it.

    Args:
        profile: Its recipe for the architecture is asked where neither the user nor the network states a value.
        path: The file.
        arch: Architecture, of timm with or without a tag.
        classes: Class list of the head, a shipped name or a file.
        chosen: What the user chose, by name of ``Preprocessing``.
        weights: ``raw`` or ``ema``; None takes the average if the file keeps one.
        options: Name of ``Preprocessing`` to how the user spells it, for messages.

    Raises:
        UserError: the file lies in a backbone folder that states another architecture, class list or kind of weights.
    """
    _same_classes(path, classes)
    feed = resolve(arch, path, chosen, recipe_for(profile, arch), options=options)
    held = path.stem if backbone_facts(path) is not None else None
    if weights and held and weights != held:
        raise UserError(
            f"--weights {weights} is not what {path.name} holds",
            f"{BACKBONE} beside it says that these are the {held} weights",
            f"leave --weights out, or give {weights}.safetensors",
        )
    weights = weights or held
    return ExternalCheckpoint(
        path, base_name(arch), classes, feed.values, weights, notes=(feed.line,), warnings=feed.warnings
    )


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
