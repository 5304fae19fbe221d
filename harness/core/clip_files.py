"""What is known of a file of CLIP weights beside its tensors: the activation it was trained with, and how images are fed.

The tensors do not tell them. ``open_clip_config.json`` beside the file does, or open_clip's own list, by the file's name.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, first_line, refuse_malformed
from harness.core.files import parse_json
from harness.core.intact import ZIP_ERRORS, is_zip

CONFIG = "open_clip_config.json"
OPENAI = ("input_resolution", "context_length", "vocab_size")
"""Entries by which OpenAI's own state dicts are known; such networks compute with QuickGELU."""
_INPUTS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class ClipSource:
    """What open_clip is asked for.

    Attributes:
        name: ``local-dir:FOLDER`` or an architecture of open_clip.
        pretrained: Tag or file of an architecture; None for a folder.
        inputs: What open_clip's list states of the inputs for this file.
        origin: Where activation and inputs come from, in words.
    """

    name: str
    pretrained: str | None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""


def find_clip(name: str, pretrained: str | None) -> ClipSource:
    """Return which model a name and a file mean together.

    Args:
        name: ``local-dir:FOLDER`` or an architecture of open_clip.
        pretrained: Tag or file of an architecture; None for a folder.

    Raises:
        UserError: what is known of the file contradicts the name, or the file is a program.
    """
    import open_clip

    path = Path(pretrained).expanduser() if pretrained else None
    config: Any = open_clip.get_model_config(name)
    if path is None or not path.is_file() or config is None:
        return ClipSource(name, pretrained, origin=f"open_clip's {name}" + (f" {pretrained}" if pretrained else ""))
    _refuse_program(path)
    if (path.parent / CONFIG).is_file():
        return _by_config(name, path, config)
    quick = bool(config.get("quick_gelu"))
    for tag in open_clip.list_pretrained_tags_by_model(name):
        listed: Any = open_clip.get_pretrained_cfg(name, tag)
        if (listed.get("url") or "").rpartition("/")[2] == path.name:
            if bool(listed.get("quick_gelu")) != quick:
                raise activation_refused(name, path, not quick)
            inputs = {key: listed[key] for key in _INPUTS if listed.get(key) is not None}
            return ClipSource(name, str(path), inputs, f"open_clip's {name} {tag}, by the name of the file")
    gelu = "QuickGELU" if quick else "GELU"
    return ClipSource(
        name,
        str(path),
        {},
        f"open_clip's {name} with {gelu}, by default: {path.name} does not state it, nor its inputs",
    )


def activation_refused(name: str, source: object, quick: bool) -> UserError:
    """Return the error of weights that were trained with another activation than an architecture has."""
    other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
    return UserError(
        f"the CLIP model {name!r} does not fit its weights",
        f"{source} was trained with {'QuickGELU' if quick else 'GELU'}, which {name} does not compute",
        f"use the model name {other}",
    )


def taken_file(folder: Path) -> Path | None:
    """Return the file of weights that open_clip takes from a folder; None if it finds none."""
    from open_clip.factory import _find_checkpoint_in_dir

    found = _find_checkpoint_in_dir(folder)
    return Path(found) if found else None


def _by_config(name: str, path: Path, config: Mapping[str, Any]) -> ClipSource:
    """Return the folder of a file, whose configuration states more than an architecture's name.

    Raises:
        UserError: it is another network, or open_clip would take another file of the folder.
    """
    try:
        stated = parse_json((path.parent / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path.parent / CONFIG} cannot be read", str(error), "fetch the folder again") from error
    with refuse_malformed(path.parent / CONFIG, "fetch the folder again"):
        odd = sorted(key for key in {*stated, *config} if stated.get(key) != config.get(key))
    if odd:
        raise UserError(
            f"{path} is not open_clip's {name}", f"{CONFIG} beside it differs in {', '.join(odd)}",
            f"name the folder in place of the architecture, and no weights: local-dir:{path.parent}"
        )  # fmt: skip
    if taken_file(path.parent) != path:
        raise UserError(
            f"{path} is one of several files of weights beside {CONFIG}", "open_clip would take another one of them",
            "put the file and the configuration into a folder of their own"
        )  # fmt: skip
    return ClipSource(f"local-dir:{path.parent}", None, {}, f"{CONFIG} beside {path.name}")


def _refuse_program(path: Path) -> None:
    """Refuse OpenAI's archives: they hold a program, which is not run here."""
    if is_zip(path):
        try:
            with zipfile.ZipFile(path) as archive:
                program = any(member.endswith("/constants.pkl") for member in archive.namelist())
        except ZIP_ERRORS as error:
            raise UserError(f"{path} is damaged", first_line(error), "fetch the file again") from error
        if program:
            raise UserError(
                f"{path} is a TorchScript archive, as OpenAI publishes CLIP",
                "it holds a program with its weights",
                "save the weights, and give that file: torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), ...)",
            )
