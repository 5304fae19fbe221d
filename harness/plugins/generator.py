"""The contract of generators: a card, settings, and "make images of this class"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from harness.core.errors import UserError
from harness.core.hub import HubModel, hub_models
from harness.core.settings import NoSettings, Settings
from harness.images.request import Request, Sample
from harness.plugins.common import DataReport, DerivedInput, ModelReport, S, Workload
from harness.store.cells import Resources

if TYPE_CHECKING:
    from pathlib import Path

    from harness.core.classes import ClassList
    from harness.plugins.context import Context


Mode = Literal["import", "regenerate", "train+regenerate"]
Information = Literal["class_names", "templates", "captions", "real_images", "real_features", "reward_models"]


@dataclass(frozen=True)
class GeneratorCard:
    """What a generator is and which supervision it used; printed by ``describe`` and on the board."""

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
    """Whether the group ``all`` includes it."""
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
    fallback: str = ""
    """Generator that is run instead where the data of this one are not provided."""
    published_images: str = ""
    """Generator that imports the images that were published of this method."""
    real: str = ""
    """Data set of real images that an import is compared with (duplicates, parents), where the profile has it."""

    @property
    def supervision(self) -> tuple[str, ...]:
        """Return what the board prints: the information, and both real-pixel flags unless the images are the real ones."""
        flags = {
            "real_pixels_at_training": self.real_pixels_at_training,
            "real_pixels_at_synthesis": self.real_pixels_at_synthesis,
        }
        if self.information == ("real_images",):
            return self.information
        return (*self.information, *(name for name, flag in flags.items() if flag))


class Generator(ABC, Generic[S]):
    """Base class of generators."""

    card: ClassVar[GeneratorCard]
    Settings: ClassVar[type[Settings]] = NoSettings
    sources: ClassVar[tuple[str, ...]] = ()
    """Settings that name model folders or hub ids (``package:PKG/PATH``, a path, ``hub:ID@REVISION``); their fingerprints enter the key."""
    fit_fields: ClassVar[tuple[str, ...]] = ()
    """Settings that shape the fit; empty: nothing is fitted. All others shape the synthesis."""
    shared_fields: ClassVar[tuple[str, ...]] = ()
    """Settings that shape both (the base model)."""

    inherits: ClassVar[str] = ""
    """Generator whose settings in the profile hold here too (a variant of it)."""
    overrides: ClassVar[tuple[str, ...]] = ()
    """Settings that are not inherited: what makes the variant."""
    import_callable_path: ClassVar[str] = "harness.run.tasks:import_images"
    """``module:function`` that lists the images of a generator whose only mode is ``import``."""
    bound_data: Mapping[str, str] = MappingProxyType({})
    """Data sets that the generator's own name points to (``folder:PATH``), with their roots."""
    parts: Mapping[str, float] = MappingProxyType({})
    """Generators whose data sets this one is drawn from (``mix:A=0.5+B=0.5``), with their shares; it finds them in the inputs
    ``part-0``, ``part-1``, ... in this order."""

    @property
    def imports(self) -> bool:
        """Return whether its images exist already and are only listed."""
        return self.card.modes == ("import",)

    @property
    def can_inspect(self) -> bool:
        """Return whether ``inspect_data`` says something of its data set, for ``doctor``."""
        return type(self).inspect_data is not Generator.inspect_data

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

    def path_settings(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return which of these settings name files or folders, whose content enters the key."""
        return self.sources

    def data(self, settings: S) -> tuple[str, ...]:
        """Return the names of the data sets that these settings need."""
        return self.card.data

    def fits(self, settings: S) -> bool:
        """Return whether these settings need a fit."""
        return bool(self.fit_fields)

    def derived_inputs(self, settings: S) -> Sequence[DerivedInput]:
        """Return what is derived once from data sets (captions, features) and read by fit and synthesis."""
        return ()

    def missing(self, settings: S) -> str:
        """Return what the settings lack for a run and how to set it, as text; empty: nothing. The generator is then not run."""
        return ""

    def inspect_data(self, root: Path, settings: S, classes: ClassList) -> DataReport:
        """Describe what is in the root of its data set, for ``doctor``; list and count, and decode a sample at most.

        Raises:
            UserError: it cannot be imported.
        """
        raise NotImplementedError(f"{self.card.id} does not look at its data")

    def inspect_models(self, settings: S) -> Sequence[ModelReport]:
        """Describe the model files that these settings name, for ``plan`` and ``doctor``; read configurations and headers only.

        Raises:
            UserError: one of them cannot be used. The generator is then not run.
        """
        return ()

    def hub_models(self, settings: S) -> Sequence[HubModel]:
        """Return the models of the Hugging Face hub that a run with these settings reads; by default those that ``sources`` name.

        ``fetch`` downloads them, and a run without a network begins only if they are here. Nothing is asked of the network.

        Raises:
            UserError: one of them is not on the hub.
        """
        return [model for name in self.sources for model in hub_models(str(getattr(settings, name)))]

    def fit_classes(self, settings: S, classes: ClassList) -> ClassList:
        """Return the class list of the fit (``ctx.classes`` in it), by default that of the run; name and content enter the key.

        Raises:
            UserError: the settings name an unknown list.
        """
        return classes

    def fit_resources(self, settings: S) -> Resources:
        """Return what the fit needs."""
        return Resources()

    def fit_workload(self, settings: S, classes: int, images: int) -> Workload | None:
        """Return how much the fit has to do on so many classes and real images, where that is known before it."""
        return None

    def synthesis_resources(self, settings: S) -> Resources:
        """Return what one shard of the synthesis needs."""
        return Resources()

    def fit(self, ctx: Context) -> None:
        """Train, and write the weights as files into ``ctx.out``; synthesis finds them in ``ctx.inputs["weights"]``.

        Called if ``fits(settings)``. What lies in ``ctx.out`` when it returns is the artifact; ``ctx.scratch``
        is deleted then. It may be killed at any time and is called again with the same folders: it continues from its
        checkpoint in ``ctx.scratch`` and must end with the same bytes. It reports ``ctx.progress(done, total, "steps")``.

        If ``fit_resources`` asks for several devices, torchrun calls it once per device, each with its ``ctx.rank`` of
        ``ctx.world_size`` and ``ctx.device``; the process group is not joined yet (``join_ranks``), and only rank 0 writes.

        Raises:
            TrainingFailed: the training cannot go on, such as a loss that is not finite.
            UserError: something the user can change. Any other exception is reported as a failure of this generator.
        """
        raise NotImplementedError(f"{self.card.id} declares fit fields but no fit")

    @abstractmethod
    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Yield the images ``request.start`` to ``request.stop - 1`` of one class, in order.

        ``Sample.index`` counts within the class, not within the request. ``Sample.image`` is (size_px, size_px, 3) uint8 RGB.
        An image depends on its index, the class, the settings and the fitted weights (``ctx.inputs["weights"]``) only: its random
        numbers come from ``request.seed(index)``, so that batch, worker and request do not matter.

        Raises:
            UserError: something the user can change. Any other exception is reported as a failure of this generator.
        """
