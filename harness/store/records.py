"""Records: the versioned schema of a result. Written by evaluate cells, read by the leaderboard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, Literal, TypeVar, get_args

from harness.core.errors import UserError
from harness.core.fields import wrong_field
from harness.core.files import parse_json
from harness.stats.estimate import Estimate

SCHEMA = 3
"""2 added the keys of all inputs and the code that measured, 3 the facts of the network, findings about the data, and which
companions a value is read with; all of them are empty in older records."""
READABLE = (1, 2, 3)

Better = Literal["higher", "lower", "neither"]
Role = Literal["primary", "secondary", "companion"]
Unit = Literal["fraction", "points", "ratio"]


@dataclass(frozen=True)
class Metric:
    """One number of a record."""

    name: str
    """Column id, unique within the suite: ``dtd``, ``TI``."""
    estimate: Estimate
    """Value with interval; fractions for unit ``fraction``, points for unit ``points``."""
    unit: Unit = "fraction"
    better: Better = "higher"
    role: Role = "primary"
    """Primary metrics are columns of the board, secondary ones columns of its further views, never ranked or gated; companions are
    kept in the record and shown one line each."""
    group: str = ""
    """Metrics of one group are averaged into one more column, once all ``group_size`` of them are there."""
    group_size: int = 0
    beside: tuple[str, ...] = field(default=(), compare=False)
    """Names of the record's companions without which the value cannot be read; shown beside it in every format. How a number
    is shown is no part of what it is: equal numbers are equal."""


@dataclass(frozen=True)
class Check:
    """One validity check: whether the scores of this record may be ranked."""

    name: str
    passed: bool
    value: float | None
    threshold: float
    meaning: str


@dataclass(frozen=True)
class Subject:
    """What was measured."""

    generator: str
    """Concrete id (``sd15``), or ``checkpoint`` for weights from outside."""
    backbone: str
    """Architecture id, or ``-`` where the images themselves were measured."""
    generator_seed: int
    train_seed: int
    information: tuple[str, ...] = ()
    """Supervision that the generator used: class names, templates, captions, real images, ..."""
    network: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Facts of the network that was measured and of how images reach it, as JSON values: ``weights`` (``raw``, ``ema``),
    ``mean`` and ``std`` (one number per channel, of inputs in [0, 1]), ``image_size`` (pixels), ``interpolation``, ``crop``
    (crop size over resized size), ``precision`` (``fp32``, ``bf16``) and ``recipe`` (the pre-training settings, or
    ``{"entry": ...}`` of an imported file). Empty where there is no network, and in records before schema 3."""


@dataclass(frozen=True)
class Comparability:
    """What must be equal for two values to stand in one column."""

    profile: str
    suite_version: int
    data: Mapping[str, str]
    """Data set name to fingerprint."""
    classes: str
    """Hash of the ordered class list of the head."""
    protocol: str
    """Preprocessing, probe mode and the like, as the suite words them."""
    recipe: str
    """Hash of the pre-training recipe; ``outside`` for imported checkpoints."""


@dataclass(frozen=True)
class Record:
    """One evaluate cell's result."""

    suite: str
    suite_order: int
    item: str
    """Which part of the suite: a data set, a fraction, a seed."""
    subject: Subject
    probe_seed: int
    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...]
    comparability: Comparability
    key: str
    """Content key of the evaluate cell."""
    schema: int = SCHEMA
    notes: tuple[str, ...] = field(default=())
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Path of roles to content key of everything it was made from: ``features/checkpoint/copy/dataset``."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Version, commit and dirtiness of the code that measured."""
    findings: tuple[str, ...] = ()
    """What a look at the data set on disk found to contradict the published data set, one sentence each."""
    setups: Mapping[str, str] = field(default_factory=dict)
    """``checkpoint`` and ``dataset`` to the key each would have if its seeds, and those of what it was made from, were left
    out: equal for the runs of one setup. Filled by whoever reads the record beside the artifacts; empty where unknown."""

    @property
    def dataset(self) -> str:
        """Return the key of the training images, or an empty text where it is not known."""
        return self._made_from("dataset")

    @property
    def checkpoint(self) -> str:
        """Return the key of the network, or an empty text where there is none or it is not known."""
        return self._made_from("checkpoint")

    def _made_from(self, role: str) -> str:
        return next((key for path, key in sorted(self.inputs.items()) if path.split("/")[-1] == role), "")

    @property
    def valid(self) -> bool:
        """Return whether every validity check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> str:
        """Return sorted JSON with floats in shortest round-trip form and a final newline."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str, source: str = "record") -> Record:
        """Parse one record.

        Raises:
            UserError: not JSON, a field is missing, or a schema this version does not know.
        """
        try:
            raw = parse_json(text)
            if raw["schema"] not in READABLE:
                raise UserError(
                    f"{source} has schema {raw['schema']}",
                    f"this version reads schemas {', '.join(map(str, READABLE))}",
                    "update the harness, or run the cell again",
                )
            return _record(raw)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{source} is not a valid record",
                f"{type(error).__name__}: {error}",
                "delete its folder and run the same command again",
            ) from error


def _record(raw: dict[str, Any]) -> Record:
    subject = raw["subject"] | {"information": tuple(raw["subject"]["information"])}
    metrics = tuple(_metric(metric) for metric in raw["metrics"])
    found = Record(
        **(
            raw
            | {
                "subject": Subject(**subject),
                "metrics": metrics,
                "checks": tuple(_typed(Check(**c)) for c in raw["checks"]),
                "comparability": Comparability(**raw["comparability"]),
                "notes": tuple(raw["notes"]),
                "findings": tuple(raw.get("findings", ())),
            }
        )
    )
    for part in (found, found.subject, found.comparability):
        if why := wrong_field(part):
            raise TypeError(why)
    return found


def _metric(raw: dict[str, Any]) -> Metric:
    estimate = _typed(Estimate(**raw["estimate"]))
    found = _typed(Metric(**(raw | {"estimate": estimate, "beside": tuple(raw.get("beside", ()))})))
    if (found.unit, found.better, found.role) not in _WORDS:
        raise ValueError(f"a metric with unit {found.unit!r}, better {found.better!r} and role {found.role!r}")
    return found


_WORDS = frozenset(product(*(get_args(kind) for kind in (Unit, Better, Role))))
_SOUND: set[tuple[type, ...]] = set()
"""Classes with types of their fields that were compared with the annotations: a store has thousands of equal metrics."""
T = TypeVar("T", Metric, Estimate, Check)


def _typed(part: T) -> T:
    """Return a part of a record once its fields have the types that they should.

    Raises:
        TypeError: one has another.
    """
    kinds = (type(part), *map(type, vars(part).values()))
    if kinds not in _SOUND:
        if why := wrong_field(part):
            raise TypeError(f"{type(part).__name__}: {why}")
        _SOUND.add(kinds)
    return part
