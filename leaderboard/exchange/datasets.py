"""The datasets of a store as their cards describe them: what was made, by which settings, how much of it."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

from harness.core.classes import SHIPPED, load_classes
from harness.core.cost import Cost, read_cost
from harness.core.errors import DataMissing, UserError
from harness.core.files import parse_json
from harness.core.identity import file_sha256
from harness.core.names import did_you_mean
from harness.core.seals import edited
from leaderboard.sources import MANIFEST

KIND, INDEX, SOURCE = "synthesise", "images.jsonl", "source.json"
ASIDE = ".set-aside-"
DIGITS = 16
PER_CLASS, CLASSES = 2, 16
"""Samples shown: images of a class, and classes."""
PROMPTS = 12
"""Prompts shown."""
_KIND = re.compile(r"((?:open-clip|q-align|local-dir|file):)?(.*)", re.DOTALL)
_PORTABLE = ("package:", "hub:", "none")
"""Beginnings of model sources that name no place on this machine."""


@dataclass
class Count:
    """What the list of a dataset's images says."""

    classes: Counter[str] = field(default_factory=Counter)
    """Class id to number of images, in the order of the class list."""
    bytes: int = 0
    prompts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Prompt and negative prompt to number of images; empty where images have none."""

    @property
    def images(self) -> int:
        """Return the number of images."""
        return self.classes.total()


@dataclass(frozen=True)
class Dataset:
    """A finished dataset of a store: an artifact of kind ``synthesise``."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """Return the key of its cell."""
        return str(self.manifest["key"])

    @property
    def generator(self) -> str:
        """Return the id of its generator."""
        return str(self.manifest["spec"]["name"])

    @property
    def params(self) -> dict[str, Any]:
        """Return the parameters of its cell: classes, size, settings."""
        return dict(self.manifest["spec"]["params"])

    @property
    def seeds(self) -> dict[str, int]:
        """Return its seeds by name; empty where nothing was drawn."""
        return dict(self.manifest["spec"].get("seeds", {}))

    @property
    def shards(self) -> tuple[str, ...]:
        """Return the names of its tar files; empty where its images are only listed."""
        return tuple(name for name in sorted(self.manifest["files"]) if name.endswith(".tar"))

    @property
    def settings(self) -> dict[str, str]:
        """Return its settings as texts, without the places of files on this machine."""
        return public_settings(self.params)

    @property
    def completed(self) -> float | None:
        """Return when the last step of its making was started (joining the shards), in seconds since 1970, or None."""
        return float(self.manifest["started"]) if "started" in self.manifest else None

    @property
    def cost(self) -> Cost | None:
        """Return what it took, summed over workers, or None where that is not known."""
        return read_cost(self.manifest)

    @cached_property
    def names(self) -> dict[str, str]:
        """Return class id to name in the order of the class list, as far as a shipped list of equal content says."""
        wanted = self.params.get("classes", {})
        if wanted.get("name") not in SHIPPED:
            return {}
        classes = load_classes(wanted["name"])
        return dict(zip(classes.ids, classes.names, strict=True)) if classes.content == wanted.get("content") else {}

    def checked(self, name: str) -> Path:
        """Return a file, its bytes checked against the manifest.

        Raises:
            UserError: it is gone, or has other bytes.
        """
        path = self.folder / name
        if not path.is_file() or file_sha256(path) != self.manifest["files"][name]["sha256"]:
            raise UserError(f"{path} is missing or damaged", "its bytes are not those of its manifest",
                            "run the command that made this dataset again: it is rebuilt")  # fmt: skip
        return path

    @cached_property
    def count(self) -> Count:
        """Return what the list of images says, from one pass over it."""
        found, ids = Count(), tuple(self.names)
        with self.checked(INDEX).open(encoding="utf-8") as lines:
            for row in map(parse_json, lines):
                index = row["class_index"]
                found.classes[row.get("wnid") or (ids[index] if index < len(ids) else str(index))] += 1
                found.bytes += row.get("bytes", 0)
                if row.get("prompt"):
                    found.prompts[row["prompt"], row.get("negative_prompt", "")] += 1
        return found

    def samples(self) -> Iterator[tuple[str, list[bytes]]]:
        """Yield class id and the encoded first images of the first classes; nothing where images are only listed."""
        shown: set[str] = set()
        for name in self.shards:
            class_id = Path(name).name.rsplit("_", 2)[0]
            if class_id not in shown and len(shown) < CLASSES:
                shown.add(class_id)
                yield class_id, _first_members(self.checked(name))


def _first_members(path: Path) -> list[bytes]:
    with tarfile.open(path) as tar:
        return [tar.extractfile(info).read() for info, _ in zip(tar, range(PER_CLASS), strict=False)]  # type: ignore[union-attr]


def public_settings(params: dict[str, Any]) -> dict[str, str]:
    """Return the settings of a cell as texts; of a model on this machine only the file's name and its hash are told."""
    sources, found = params.get("sources", {}), {}
    for name, value in sorted(params.get("settings", {}).items()):
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        kind, place = _KIND.fullmatch(text).groups("")  # type: ignore[union-attr]
        if name in sources and not place.startswith(_PORTABLE):
            text = f"{kind}{PureWindowsPath(place).name} ({sources[name][:DIGITS]})"  # which knows both kinds of slash
        if text:
            found[name] = text
    return found


def find(store: Path, names: Sequence[str]) -> list[Dataset]:
    """Return the finished datasets of a store, by generator, ``generator:KEY`` or name of the folder; all for no name.

    Raises:
        DataMissing: the store has no dataset.
        UserError: no dataset has that name, or a manifest was edited.
    """
    every = [Dataset(path.parent, _manifest(path)) for path in sorted((store / KIND).glob(f"*/{MANIFEST}"))
             if ASIDE not in path.parent.name]  # fmt: skip
    if not every:
        raise DataMissing(f"no datasets in {store}", "no generator has finished its images there",
                          "python -m harness run --generator lbgen, or name another --store")  # fmt: skip
    known = sorted({name for one in every for name in (one.generator, one.folder.name)})
    found: dict[str, Dataset] = {}
    for name in names:
        mine = {one.key: one for one in every if _is_named(one, name)}
        if not mine:
            raise UserError(
                f"no dataset {name!r} in {store}",
                f"it has {', '.join(known)}",
                f"{did_you_mean(name, known)}correct the name",
            )
        found |= mine
    return list(found.values()) if names else every


def _is_named(one: Dataset, name: str) -> bool:
    head, _, digits = name.rpartition(":")
    return name in (one.generator, one.folder.name) or (head == one.generator and one.key.startswith(digits))


def fit_of(store: Path, dataset: Dataset) -> dict[str, Any] | None:
    """Return the manifest of the fit behind a dataset, or None where nothing was fitted or the fit is not there."""
    key = dataset.manifest["spec"].get("inputs", {}).get("weights", "")
    paths = sorted((store / "fit").glob(f"*-{key[:DIGITS]}/{MANIFEST}")) if key else []
    return _manifest(paths[0]) if paths else None


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = dict(parse_json(path.read_text(encoding="utf-8")))
        why = edited(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
    if why:
        raise UserError(f"{path} cannot be used", why, "run the command that made this artifact again: it is rebuilt")
    return manifest
