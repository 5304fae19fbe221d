"""``rescore`` and ``verify``: metrics anew from stored rows, and every byte of a store against its manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import CorruptArtifact, DataMissing, UserError
from harness.plan.profile import load_profile
from harness.run.scoring import CARDS, RECORD, read_record, rescore_artifact, sealed
from harness.store.artifacts import ASIDE, MANIFEST, Artifact, read_manifest
from harness.store.cells import KINDS
from harness.store.data import find_data


@dataclass(frozen=True)
class Rescored:
    """What became of one evaluation."""

    folder: Path
    label: str
    outcome: str
    """``unchanged``, ``metrics as before, record brought up to date``, ``metrics as before, added: ...``, ``metrics changed: ...`` or
    ``not rescored: ...``."""

    @property
    def changed(self) -> bool:
        """Return whether a number changed."""
        return self.outcome.startswith("metrics changed")

    @property
    def failed(self) -> bool:
        """Return whether it could not be rescored."""
        return self.outcome.startswith("not rescored")


def rescore(store: Path, profile: str = "") -> list[Rescored]:
    """Recompute every evaluation of a store from its rows; records and units are replaced where they differ.

    Args:
        store: The store.
        profile: Profile whose dataset cards hold where an old artifact did not keep them; default: the record's own.

    Raises:
        DataMissing: the store has no finished evaluations.
    """
    folders = sorted(
        path.parent for path in (store / "evaluate").glob(f"*/{MANIFEST}") if ASIDE not in path.parent.name
    )
    if not folders:
        raise DataMissing(f"no results in {store}", "no finished evaluation was found", "give the folder of a store")
    return [_rescore_one(store, folder, profile) for folder in folders]


def _rescore_one(store: Path, folder: Path, profile: str) -> Rescored:
    """Rescore one evaluation; one that cannot be is named and left as it is, and harms no other."""
    try:
        return _rescored(store, folder, profile)
    except UserError as error:
        return Rescored(folder, "", f"not rescored: {error.what}: {error.why}")


def _rescored(store: Path, folder: Path, profile: str) -> Rescored:
    manifest = read_manifest(folder) or {}
    cards = None if CARDS in manifest["files"] else _cards(manifest["spec"], profile)
    return Rescored(folder, manifest.get("label", ""), rescore_artifact(store, folder, cards))


def _cards(spec: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """Return the cards of an artifact that did not keep them: the profile's, if the fingerprint says they are the same."""
    marks, name = spec["params"]["data"], profile or spec["params"]["subject"]["profile"]
    settings = load_profile(name).profile.data if marks else {}
    cards: dict[str, Any] = {}
    for data, mark in marks.items():
        source = find_data(data, settings[data]) if data in settings else f"profile {name} has no data set {data!r}"
        if isinstance(source, str):
            cards[data] = {}  # data given by the user is the public data set, whose card is empty
        elif source.data_hash == mark:
            cards[data] = dict(source.card)
        else:
            raise UserError(
                f"the dataset card of {data!r} is not known",
                f"the rows were measured with another version of it than profile {name} has",
                "give the profile they were made with: --profile FILE, or run the cells again",
            )
    return cards


def verify(store: Path) -> list[str]:
    """Check every byte of every finished artifact; returns one line per damaged or edited artifact.

    Raises:
        DataMissing: there is no finished artifact.
    """
    found: list[str] = []
    looked_at = 0
    for kind in KINDS:
        for folder in sorted(path for path in (store / kind).glob("*") if ASIDE not in path.name):
            try:
                manifest = read_manifest(folder)
                if manifest is not None:
                    looked_at += 1
                    Artifact(folder, manifest).verify()
                    found += _inconsistent(folder, manifest)
            except CorruptArtifact as error:
                found.append(f"{kind}/{folder.name}: {error.why}")
    if not looked_at and not found:
        raise DataMissing(f"nothing to verify in {store}", "it holds no finished artifact and no baseline",
                          "give the folder of a store or of a baseline")  # fmt: skip
    return found


def _inconsistent(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return what in a manifest does not follow from the rest of it."""
    name, problems = f"{folder.parent.name}/{folder.name}", []
    if not sealed(manifest):
        problems.append(f"{name}: its manifest was edited: the list of files is not what it was sealed with")
    if folder.parent.name == "evaluate":
        record = read_record(folder / RECORD)
        if record is None:
            problems.append(f"{name}: its record is missing or cannot be read")
        elif record.key != manifest["key"]:
            problems.append(f"{name}: its record belongs to another cell")
    return problems
