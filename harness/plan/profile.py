"""Profiles: strict TOML files that size a run, and the settings resolved from flags, ``--set``, profile and defaults."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from harness.core.errors import UserError, first_line
from harness.core.files import read_text
from harness.core.names import did_you_mean
from harness.core.settings import Settings, settings_error
from harness.store.data import DataSettings

PROFILES = ("micro", "in100", "in1k")
EXECUTORS = "harness.executors"
"""Entry-point group of executors; a profile's table of such a name (``[slurm]``) holds the settings of that executor."""
ORIGINALS = 0
"""The ``copy_px`` of a profile that trains from the original files."""


class DatasetSettings(Settings):
    """How many images of which size a generator is asked for."""

    images_per_class: int = Field(default=1300, ge=1)
    chunk: int = Field(default=65, ge=1)
    """Images of one shard; part of no seed, so it may change without changing an image."""
    size_px: int = Field(default=512, ge=8)
    copy_px: int = Field(default=256, ge=0)
    """Side of the square uint8 training copy; 0: none, backbones train from the original files (far slower)."""
    common_count: int = Field(default=0, ge=0)
    """Images of each class that every source is cut to, real ones included; 0: as they are."""
    common_codec: str = ""
    """Codec that every image goes through before training (``jpeg-95``, ``webp-90``, ``png``); empty: as they are."""
    common_px: int = Field(default=512, ge=8)
    """Short side in pixels before the common codec."""

    @field_validator("copy_px")
    @classmethod
    def _copy_or_originals(cls, value: int) -> int:
        if value != ORIGINALS and value < 8:
            raise ValueError("it is a side of at least 8 pixels, or 0 to train from the original files")
        return value


class Profile(Settings):
    """One profile, as its TOML file says."""

    name: str
    summary: str = ""
    classes: str
    """Named class list, or the path of one."""
    vary: Literal["all", "train"] = "train"
    """Which seeds ``--seeds N`` varies: all, or the backbone's only."""
    train_data: str = "train"
    """Data set that ``real`` imports."""
    dataset: DatasetSettings = DatasetSettings()
    generators: dict[str, dict[str, Any]] = Field(default_factory=dict)
    backbones: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The backbones of this profile in order, each with what differs from the default pre-training recipe."""
    suites: dict[str, dict[str, Any]] = Field(default_factory=dict)
    data: dict[str, DataSettings] = Field(default_factory=dict)
    executors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Executor to its settings: in the file, a table of its name."""
    minutes: dict[str, float] = Field(default_factory=dict)
    """Expected minutes of a cell or shard by ``kind/name``, name or kind, for plans before anything was measured."""
    disk_mb: dict[str, float] = Field(default_factory=dict)
    """Expected megabytes per cell name or kind, where no setting tells them (shards and training copies follow from theirs)."""


@dataclass(frozen=True)
class Origin:
    """A setting with its value and where it came from."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True)
class Resolved:
    """A profile after ``--set`` and ``--data``, with the origin of every explicit value."""

    profile: Profile
    origins: tuple[Origin, ...]


def load_profile(name: str, overrides: Sequence[str] = (), data: Sequence[str] = ()) -> Resolved:
    """Load a shipped profile by name or any TOML file by path, then apply ``key=value`` and ``NAME=PATH`` texts.

    Raises:
        UserError: no such profile, a TOML error, an unknown key, or a value of the wrong type.
    """
    raw, source = _read(name)
    origins = {key: Origin(key, value, source) for key, value in _leaves(raw)}
    for text in overrides:
        key, value = parse_override(text)
        _put(raw, _key_path(key), value, text)
        origins[key] = Origin(key, value, "--set")
    for text in data:
        label, _, path = text.partition("=")
        if not path:
            raise UserError(f"--data {text!r} is not NAME=PATH", "there is no '='", "write e.g. --data dtd=/data/dtd")
        entry = raw.setdefault("data", {}).setdefault(label, {})
        for key in ("writer", "writer_name", "identity", "card"):  # the user's own data is the public data set
            if (given := origins.get(f"data.{label}.{key}")) is None or given.source != "--set":
                entry.pop(key, None)
        entry["root"] = str(Path(path).expanduser().resolve())
        origins[f"data.{label}.root"] = Origin(f"data.{label}.root", entry["root"], "--data")
    raw |= _executor_tables(raw)
    try:
        return Resolved(Profile.model_validate(raw), tuple(origins.values()))
    except ValidationError as error:
        raise settings_error(f"profile {name!r}", error, tuple(Profile.model_fields)) from error


def _executor_tables(raw: dict[str, Any]) -> dict[str, Any]:
    """Take the tables that bear the name of an executor out of a profile, and return them as ``executors``."""
    unknown = raw.keys() - Profile.model_fields.keys()
    names = {point.name for point in entry_points(group=EXECUTORS)} if unknown else set()
    return {"executors": {name: raw.pop(name) for name in sorted(unknown & names)}} if unknown & names else {}


def _read(name: str) -> tuple[dict[str, Any], str]:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"profile file {name} does not exist", "no such file", "give a TOML file or a shipped profile"
            )
        text = read_text(path, "save the profile as UTF-8")
    elif name in PROFILES:
        text = importlib.resources.files("harness.profiles").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        hint = did_you_mean(name, PROFILES)
        raise UserError(
            f"unknown profile {name!r}",
            f"shipped profiles: {', '.join(PROFILES)}",
            f"{hint}give a shipped name or the path of a .toml file",
        )
    try:
        return tomllib.loads(text), f"profile {name}"
    except (ValueError, RecursionError) as error:
        raise UserError(f"profile {name} is not TOML", first_line(error), "correct the file") from error


def parse_override(text: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``; a value that is not TOML is text.

    Raises:
        UserError: there is no key or no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(
            f"--set {text!r} is not KEY=VALUE", "there is no '='", "write e.g. --set generators.lbgen.weight_q=0"
        )
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return key, value


def _key_path(key: str) -> list[str]:
    """Return the parts of a dotted key; a part in quotation marks may hold dots (``generators."folder:v1.0".clip``)."""
    return [part.strip('"') for part in re.split(r'\.(?=(?:[^"]*"[^"]*")*[^"]*$)', key)]


def _put(raw: dict[str, Any], path: list[str], value: Any, text: str) -> None:
    for part in path[:-1]:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise UserError(f"--set {text!r} reaches into a value", f"{part!r} is not a table", "name a setting")
    raw[path[-1]] = value


def _leaves(raw: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in raw.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
