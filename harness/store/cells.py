"""Cells: the nodes of a plan. A cell says what is to be made, from what, with which seeds; never where or when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from harness.core.identity import KEY_SCHEMA, content_key

Kind = Literal["fit", "synthesise", "pretrain", "extract", "evaluate"]
KINDS: tuple[Kind, ...] = ("fit", "synthesise", "pretrain", "extract", "evaluate")

SHOWN_KINDS = ("fit", "synthesise", "import", "pretrain", "extract", "evaluate")
"""Kinds as users see them."""
IMPORTS = ("outside", "live", "baseline")
"""Names of cells of kind ``pretrain`` that bring in a checkpoint, a live model or a trivial baseline."""


@dataclass(frozen=True)
class Resources:
    """What a cell needs while it runs; no part of its identity, except that ``threads`` is fixed per cell.

    Sums of floats depend on the number of threads, so a cell always runs with the number it declares.
    """

    devices: int = 1
    """Device slots; more than one means torchrun."""
    threads: int = 1
    minutes: float = 1.0
    """Expected time on the profile's machine; the plan replaces it by measured times where it has them."""
    time_fraction: float = 1.0
    """Part it takes of the time that the profile gives for its kind or name, such as a run on a fraction of the data."""
    disk_mb: float = 1.0
    isolated: bool = False
    """True for work that leaves its process unusable for others (the toolboxes of the perception suites)."""


@dataclass(frozen=True)
class Cell:
    """One unit of work and its identity."""

    kind: Kind
    name: str
    """Registry id of the generator, backbone or suite, or the name of an extraction."""
    version: int
    params: Mapping[str, Any]
    """Everything that can change the result, as plain JSON values: settings, hashes of data and of models."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role to the key of the cell that makes it."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    callable_path: str = ""
    """``module:function`` that does the work."""
    label: str = ""
    """What a person reads in tables; no part of the identity."""
    data: tuple[str, ...] = ()
    """Names of the data sets it reads; their fingerprints are in ``params``."""
    shards: tuple[str, ...] = ()
    """Parts that any number of workers may make side by side; derived from ``params``."""
    resources: Resources = field(default_factory=Resources)
    code_hash: str = ""
    """Hash of the code that the work runs, of an evaluation until its rows are there; detects a forgotten version bump, no part
    of the identity."""
    cost: str = ""
    """What it will process, in words, for the plan; no part of the identity."""
    score_hash: str = ""
    """Of an evaluation, hash of the code that makes a record of its rows; no part of the identity."""

    @property
    def spec(self) -> dict[str, Any]:
        """Return what the key is the hash of."""
        return {
            "schema": KEY_SCHEMA,
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "params": self.params,
            "inputs": self.inputs,
            "seeds": self.seeds,
            "threads": self.resources.threads,
        }

    @cached_property
    def key(self) -> str:
        """Return the content key: the SHA-256 of the canonical JSON of ``spec``."""
        return content_key(self.spec)

    @property
    def shown_kind(self) -> str:
        """Return what users see as its kind: weights that are brought in are stored beside trained ones, and nothing is trained."""
        return "import" if self.kind == "pretrain" and self.name in IMPORTS else self.kind

    @property
    def folder(self) -> str:
        """Return the artifact's folder below the store: kind, name and the first 16 digits of the key."""
        return f"{self.kind}/{self.name.replace('/', '_').replace(':', '_')}-{self.key[:16]}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values from which ``from_dict`` rebuilds the cell."""
        return asdict(self)

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Cell:
        """Rebuild a cell from ``to_dict``."""
        return Cell(
            **{
                **raw,
                "data": tuple(raw["data"]),
                "shards": tuple(raw["shards"]),
                "resources": Resources(**raw["resources"]),
            }
        )
