"""Contracts between the engine and its plugins: cards, requests, items, and the classes a plugin derives from.

A generator answers "make images of this class"; a suite answers "what does this backbone do with this data". Neither
knows about cells, stores or processes. The engine finds both through the registry and never imports them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from harness.core.errors import UserError
from harness.core.identity import derive_seed
from harness.stats.difference import Units
from harness.store.cells import Resources
from harness.store.records import Check, Metric

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from harness.core.classes import ClassList
    from harness.run.job import Context

Mode = Literal["import", "regenerate", "train+regenerate"]
Information = Literal["class_names", "templates", "captions", "real_images", "real_features", "reward_models"]


class Settings(BaseModel):
    """Base of all settings: strict keys, frozen, plain JSON values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True)
class GeneratorCard:
    """What a generator is and what it was told; printed by ``describe`` and on the board."""

    id: str
    version: int
    summary: str
    information: tuple[Information, ...]
    real_pixels_at_training: bool
    real_pixels_at_synthesis: bool
    base_model: str = "none"
    prompts: str = "none"
    sampler: str = "none"
    licence: str = ""
    citation: str = ""
    differences: tuple[str, ...] = ()
    """Where it departs from the published method."""
    groups: tuple[str, ...] = ()
    default: bool = True
    """Whether ``all`` includes it."""
    data: tuple[str, ...] = ()
    """Names of data sets it reads."""
    modes: tuple[Mode, ...] = ("regenerate",)
    """Ways to its images; ``("import",)`` alone means that nothing is made: a published data set is listed where it is."""
    adapter: str = "none"
    """What is trained on top of the base model, and the scale it is used at."""
    count: str = "images_per_class images of every class"
    codec: str = "PNG"
    cost: str = ""
    """Cost at full scale, with its source."""
    reading: str = ""
    """What must be known to read its numbers."""
    otherwise: str = ""
    """Generator that stands in where the data of this one are not given."""
    published_images: str = ""
    """Generator that imports the images that were published of this method."""
    real: str = ""
    """Data set of real images that an import is compared with (duplicates, parents), where the profile has it."""

    @property
    def told(self) -> tuple[str, ...]:
        """Return what the board prints: the information, and both real-pixel flags unless the images are the real ones."""
        flags = {
            "real_pixels_at_training": self.real_pixels_at_training,
            "real_pixels_at_synthesis": self.real_pixels_at_synthesis,
        }
        if self.information == ("real_images",):
            return self.information
        return (*self.information, *(name for name, flag in flags.items() if flag))


@dataclass(frozen=True)
class Amount:
    """How much a cell has to do and how fast that is assumed to go: for plans, no part of any identity."""

    count: int
    unit: str
    """What is counted, such as ``updates of 8 images``."""
    per_second: float
    """Assumed speed on one device; the profile's minutes and measured times come before it."""

    @property
    def minutes(self) -> float:
        """Return the expected time."""
        return self.count / self.per_second / 60

    def __str__(self) -> str:
        return f"{self.count:,} {self.unit}"


@dataclass(frozen=True)
class Request:
    """A run of images of one class."""

    class_index: int
    class_id: str
    """Such as ``n01440764``."""
    class_name: str
    """Such as ``tench``."""
    start: int
    stop: int
    size_px: int
    generator_seed: int

    def seed(self, index: int, stream: str = "image") -> int:
        """Return the seed of image ``index``: from run seed, class and index only, never from the generator's name."""
        return derive_seed(stream, self.generator_seed, self.class_id, index)

    @property
    def shard(self) -> str:
        """Return the shard's name."""
        return f"{self.class_id}_{self.start:05d}_{self.stop:05d}"


@dataclass(frozen=True)
class Sample:
    """One synthesised image with its facts."""

    index: int
    image: np.ndarray
    """(H, W, 3) uint8."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    parent: str = ""
    """Path of the real image it was made from, if any."""


class NoSettings(Settings):
    """No settings at all."""


class Generator(ABC):
    """Base class of generators."""

    card: ClassVar[GeneratorCard]
    Settings: ClassVar[type[Settings]] = NoSettings
    sources: ClassVar[tuple[str, ...]] = ()
    """Settings that name model folders or hub ids (``package:PKG/PATH``, a path, ``hub:ID@REVISION``); their fingerprints enter the key."""
    fit_fields: ClassVar[tuple[str, ...]] = ()
    """Settings that shape the fit; empty: nothing is fitted. All others shape the synthesis."""
    shared_fields: ClassVar[tuple[str, ...]] = ()
    """Settings that shape both (the base model)."""

    modules: ClassVar[tuple[str, ...]] = ()
    """Packages whose code counts as the generator's own, for noticing a forgotten version bump."""
    inherits: ClassVar[str] = ""
    """Generator whose settings in the profile hold here too (a variant of it)."""
    own: ClassVar[tuple[str, ...]] = ()
    """Settings that are not inherited: what makes the variant."""
    import_work: ClassVar[str] = "harness.run.tasks:import_images"
    """``module:function`` that lists the images of a generator whose only mode is ``import``."""
    roots: Mapping[str, str] = MappingProxyType({})
    """Data sets that the generator's own name points to (``folder:PATH``), with their roots."""

    @property
    def imports(self) -> bool:
        """Return whether its images exist already and are only listed."""
        return self.card.modes == ("import",)

    @property
    def can_look(self) -> bool:
        """Return whether ``look`` says something of its data set, for ``doctor``."""
        return type(self).look is not Generator.look

    @property
    def takes_argument(self) -> bool:
        """Return whether it is used as ``id:argument``."""
        return type(self).bind is not Generator.bind

    def bind(self, argument: str) -> Generator:
        """Return the generator for a name of the form ``id:argument``.

        Raises:
            UserError: this generator takes no argument.
        """
        raise UserError(
            f"generator {self.card.id!r} takes no argument", f"{argument!r} was given", f"write {self.card.id}"
        )

    def located(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return which of these settings name files or folders, whose content enters the key."""
        return self.sources

    def data(self, settings: Any) -> tuple[str, ...]:
        """Return the names of the data sets that these settings need."""
        return self.card.data

    def fits(self, settings: Any) -> bool:
        """Return whether these settings need a fit."""
        return bool(self.fit_fields)

    def needs(self, settings: Any) -> Sequence[Need]:
        """Return what is derived once from data sets (captions, features) and read by fit and synthesis."""
        return ()

    def missing(self, settings: Any) -> str:
        """Return what the settings lack for a run, in words; empty when nothing."""
        return ""

    def look(self, root: Path, settings: Any, classes: ClassList) -> DataReport:
        """Return what lies in the root of its data set; lists and counts, and decodes a sample at most.

        Raises:
            UserError: it cannot be imported.
        """
        raise NotImplementedError(f"{self.card.id} does not look at its data")

    def fit_classes(self, settings: Any, classes: ClassList) -> ClassList:
        """Return the class list of the fit (``ctx.classes`` in it), by default that of the run; name and content enter the key.

        Raises:
            UserError: the settings name an unknown list.
        """
        return classes

    def fit_resources(self, settings: Any) -> Resources:
        """Return what the fit needs."""
        return Resources()

    def fit_amount(self, settings: Any, classes: int, images: int) -> Amount | None:
        """Return how much the fit has to do on so many classes and real images, where that is known before it."""
        return None

    def synthesis_resources(self, settings: Any) -> Resources:
        """Return what one shard of the synthesis needs."""
        return Resources()

    def fit(self, ctx: Context) -> None:
        """Write the fitted weights into ``ctx.out``; resumable from whatever is already there."""
        raise NotImplementedError(f"{self.card.id} declares fit fields but no fit")

    @abstractmethod
    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images ``request.start`` to ``request.stop - 1`` of one class, in order.

        The images depend on the request, the settings and the fitted weights (``ctx.inputs["weights"]``) only.
        """


@dataclass(frozen=True)
class SuiteCard:
    """What a suite measures; printed by ``describe``."""

    id: str
    version: int
    summary: str
    formula: str
    conventions: tuple[str, ...]
    citation: str
    order: int
    """Position of its columns on the board."""
    data: tuple[str, ...]
    """Names of all data sets it may read; items whose data the profile lacks are listed as not run."""
    baselines: tuple[str, ...] = ()
    """Trivial baselines without a network that it measures: ``constant``, ``uniform``, ``humans``."""
    groups: tuple[str, ...] = ()
    default: bool = True
    subject: Literal["backbone", "dataset"] = "backbone"
    sources: tuple[str, ...] = ()
    """Where each part of the protocol comes from."""
    known_disagreements: tuple[str, ...] = ()
    """What published numbers or descriptions contradict, and which side is taken here."""


@dataclass(frozen=True)
class DataReport:
    """What a look at a data set on disk has found; one line of ``doctor``."""

    layout: str
    """Which of the layouts in circulation it is."""
    counts: str
    """Numbers of images per part, in words."""
    classes: str
    """Which class list, in words."""
    sample: tuple[str, ...] = ()
    """Paths of a few images whose decoding is tried."""
    verified: tuple[str, ...] = ()
    """Files whose hashes are those expected."""
    wrong: tuple[str, ...] = ()
    """Files whose hashes differ, each with what was expected."""


@dataclass(frozen=True)
class Need:
    """Something derived once and shared, made by an extract cell; wanted by evaluations and by generators."""

    role: str
    """Name under which it is found in ``ctx.inputs``."""
    name: str
    """Name of the extraction; with ``params``, data and (for evaluations) the backbone its identity."""
    version: int
    work: str
    """``module:function``, called with a Context."""
    params: Mapping[str, Any]
    data: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    per_second: float = 0.0
    """Images a second that it is assumed to go through, where a generator's need looks at every image; for plans."""


@dataclass(frozen=True)
class Item:
    """One evaluation: a data set, perhaps with a fraction or a number of shots, and a probe seed."""

    label: str
    data: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    probe_seed: int = 0
    needs: tuple[Need, ...] = ()
    resources: Resources = field(default_factory=Resources)
    checkpoint: bool = True
    """Whether the evaluation itself reads the backbone (false when it works on extracted features only)."""


@dataclass(frozen=True)
class Score:
    """What a suite makes of its rows."""

    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


class Suite(ABC):
    """Base class of suites: rows per test item first, metrics as pure functions of rows."""

    card: ClassVar[SuiteCard]
    Settings: ClassVar[type[Settings]] = NoSettings
    sources: ClassVar[tuple[str, ...]] = ()
    modules: ClassVar[tuple[str, ...]] = ()
    """Packages whose code counts as the suite's own, for noticing a forgotten version bump."""
    looks: ClassVar[Mapping[str, str]] = {}
    """Data set name to ``module:function``, called with (name, root, card), that returns a ``DataReport`` or raises a
    ``UserError``; ``doctor`` and every evaluation call it. It reads lists and counts files, and decodes at most a few of them."""
    own_size: ClassVar[bool] = False
    """Whether a checkpoint from outside is measured at its own image size, whatever a setting ``image_size`` says."""
    origins: ClassVar[Mapping[str, str]] = {}
    """Data set name to where it is published, in a few words; ``doctor`` says so of one that is not given."""

    def items(self, settings: Any, arch: str) -> Sequence[Item]:
        """Return the evaluations of one backbone; by default one over all its data sets.

        Raises:
            NotPlanned: this architecture is not measured by this suite; the board shows a dash with the reason.
        """
        return (Item(label=self.card.id, data=self.card.data),)

    def protocol(self, settings: Any) -> str:
        """Return in words what makes numbers comparable besides data and classes: preprocessing, probe mode."""
        return ""

    def cost(self, item: Item, settings: Any, cards: Mapping[str, Any]) -> str:
        """Return what the evaluation of an item will process, in words, where that is worth knowing before a run."""
        return ""

    @abstractmethod
    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per test item."""

    @abstractmethod
    def score(self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any]) -> Score:
        """Return metrics and validity checks; pure: nothing but ``rows`` and the arguments count."""

    def units(
        self, rows: pd.DataFrame, item: Item, settings: Any, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return, for paired comparisons, what resampling needs of the metrics ``names``; pure as ``score``.

        A metric left out can still be compared, as if the other system had been measured on other items.
        """
        return ()


class NotPlanned(Exception):
    """Say why a suite does not measure an architecture."""
