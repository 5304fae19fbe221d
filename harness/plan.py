"""Plans: from a selection to the DAG of cells. Pure but for looking where data is; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness import baselines, registry
from harness.backbones.recipe import PretrainSettings
from harness.cells import Cell, Kind, Resources
from harness.classes import ClassList, load_classes
from harness.contracts import Generator, Item, NotPlanned, Settings, Suite
from harness.data import DataSource, find_data
from harness.errors import DataMissing, UserError
from harness.identity import content_key, file_sha256, fingerprint
from harness.names import near
from harness.plan_datasets import common_form, copy_mb, dataset_cell, generator_table
from harness.profile import DataSettings, Profile, local_source, parse_settings

COPY_VERSION = 1
PRETRAIN_VERSION = 1
OUTSIDE_VERSION = 1
CHECKPOINT = "checkpoint"
"""Name under which the file of a checkpoint from outside is found."""


@dataclass(frozen=True)
class Outside:
    """Weights from outside, evaluated without generator or pre-training."""

    path: Path
    arch: str
    classes: str
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    image_size: int = 224
    weights: str = "ema"
    baseline: baselines.Baseline | None = None
    """A trivial baseline instead of a file."""


@dataclass(frozen=True)
class Selection:
    """What the user asked for."""

    profile: Profile
    generators: str = ""
    suites: str = "all"
    backbones: str = ""
    seeds: int = 1
    vary: str = ""
    outside: Outside | None = None


@dataclass(frozen=True)
class NotRun:
    """Something of the selection that is not in the plan."""

    what: str
    reason: str
    asked: bool
    """Whether the user named it; then the run ends with exit code 4."""


@dataclass(frozen=True)
class Trained:
    """A backbone, trained by us or from outside, ready to be measured."""

    cell: Cell
    generator: str
    arch: str
    generator_seed: int
    train_seed: int
    information: tuple[str, ...]
    classes: ClassList
    recipe: str
    baseline: str = ""
    """Kind of a trivial baseline; empty for a trained network."""


@dataclass
class Plan:
    """The cells in an order in which every input comes first."""

    cells: dict[str, Cell] = field(default_factory=dict)
    sources: dict[str, DataSource] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)

    def add(self, cell: Cell) -> Cell:
        """Add a cell once; equal keys are one cell."""
        return self.cells.setdefault(cell.key, cell)

    def inputs(self, cell: Cell) -> dict[str, Cell]:
        """Return the cells whose artifacts a cell reads."""
        return {role: self.cells[key] for role, key in cell.inputs.items()}

    def skip(self, what: str, reason: str, asked: bool) -> None:
        """Note something that is not run, once."""
        entry = NotRun(what, reason, asked)
        if entry not in self.not_run:
            self.not_run.append(entry)


class Planner:
    """Builds one plan."""

    def __init__(self, selection: Selection, given: Mapping[str, DataSource] | None = None) -> None:
        """Plan with what is there; with ``given`` data as if all the rest were there too, to know what it would cost."""
        self.selection, self.assume = selection, given is not None
        self.profile = selection.profile
        self.plan = Plan()
        self.suite_ids, self.suites_asked = registry.suites().expand(selection.suites)
        self._data: dict[str, DataSource | str] = dict(given or {})
        self._models: dict[Path, str] = {}
        self._check_tables()

    def build(self) -> Plan:
        """Return the plan.

        Raises:
            UserError: an unknown name or setting.
        """
        for trained, dataset in self._subjects():
            for suite_id in self.suite_ids:
                suite = registry.suites().get(suite_id)
                if suite.card.subject == "backbone":
                    self._measure(suite, trained)
                elif dataset is not None:
                    self._measure(suite, trained, dataset)
        self._prune()
        return self.plan

    def _prune(self) -> None:
        """Keep what leads to a measurement; without suites everything is an end in itself."""
        if not self.suite_ids:
            return
        kept: dict[str, None] = {}
        for key in reversed(self.plan.cells):
            cell = self.plan.cells[key]
            if cell.kind == "evaluate" or key in kept:
                kept.update(dict.fromkeys((key, *cell.inputs.values())))
        self.plan.cells = {key: cell for key, cell in self.plan.cells.items() if key in kept}

    def _check_tables(self) -> None:
        for table, known in (("generators", registry.generators().ids()), ("suites", registry.suites().ids())):
            for name in getattr(self.profile, table):
                if name not in known:
                    raise UserError(
                        f"profile {self.profile.name!r} sizes an unknown entry '{table}.{name}'",
                        f"registered {table}: {', '.join(known)}",
                        f"{near(name, known)}correct the key",
                    )

        known_data = {name for plugin in self._plugins() for name in plugin.card.data} | {"train"}
        for name in self.profile.data:
            if name not in known_data:
                raise UserError(
                    f"no generator or suite reads a data set called {name!r}",
                    f"names in use: {', '.join(sorted(known_data))}",
                    f"{near(name, sorted(known_data))}correct --data or the profile",
                )

    @staticmethod
    def _plugins() -> Iterator[Generator | Suite]:
        yield from registry.generators().available()[0]
        yield from registry.suites().available()[0]

    def _subjects(self) -> Iterator[tuple[Trained, Cell | None]]:
        outside = self.selection.outside
        if outside is not None and outside.baseline is not None:
            yield self._baseline(outside, outside.baseline), None
            return
        if outside is not None:
            yield self._import(outside), None
            return
        ids, asked = registry.generators().expand(self.selection.generators)
        classes = load_classes(self.profile.classes)
        for generator, by_name in self._generators(ids, asked):
            try:
                settings = parse_settings(
                    generator.Settings, generator_table(self.profile, generator), generator.card.id
                )
                wanted = generator.data(settings)
                missing = [str(self._data[data]) for data in wanted if not self.find(data, generator.roots)]
                missing += filter(None, [generator.missing(settings)])
                if missing and not self.assume:
                    raise DataMissing(generator.card.id, missing[0], "")
                for seeds in self._seeds():
                    dataset = dataset_cell(self, generator, settings, classes, seeds[0])
                    for arch in self._archs():
                        yield self._pretrain(generator, dataset, classes, arch, *seeds), dataset
            except DataMissing as error:
                self.plan.skip(f"generator {generator.card.id}", error.why, by_name)

    def _generators(self, ids: Sequence[str], asked: frozenset[str]) -> list[tuple[Generator, bool]]:
        """Return the generators and whether each was named; an import without its data gives way to its stand-in."""
        found: dict[str, tuple[Generator, bool]] = {}
        for name in ids:
            generator, by_name = registry.generators().get(name), name in asked
            if generator.card.otherwise and not all(self.find(data) for data in generator.card.data):
                generator = registry.generators().get(generator.card.otherwise)
            by_name = by_name or found.get(generator.card.id, (generator, False))[1]
            found[generator.card.id] = (generator, by_name)
        return list(found.values())

    def _seeds(self) -> list[tuple[int, int]]:
        vary = self.selection.vary or self.profile.vary
        both = vary in ("all", "generator")
        return [(seed if both else 0, seed if vary != "generator" else 0) for seed in range(self.selection.seeds)]

    def _archs(self) -> tuple[str, ...]:
        known = tuple(self.profile.backbones)
        asked = tuple(filter(None, self.selection.backbones.split(","))) or known
        for arch in asked:
            if arch not in known:
                raise UserError(
                    f"unknown backbone {arch!r}",
                    f"profile {self.profile.name!r} has {', '.join(known)}",
                    f"{near(arch, known)}add [backbones.{arch}] to a profile of your own",
                )
        return asked

    def find(self, name: str, roots: Mapping[str, str] = MappingProxyType({})) -> DataSource | None:
        """Return a data set of the profile, or of the roots given; None where it is not there."""
        if name not in self._data:
            settings = DataSettings(root=roots[name]) if name in roots else self.profile.data.get(name)
            self._data[name] = (
                DataSource(name, "", "assumed", {})
                if self.assume
                else find_data(name, settings)
                if settings
                else f"profile {self.profile.name!r} has no data set {name!r}"
            )
        found = self._data[name]
        if isinstance(found, DataSource):
            self.plan.sources[name] = found
            return found
        return None

    def expected(self, kind: Kind, name: str, resources: Resources) -> Resources:
        """Return resources with the profile's expectation of the time and the disk."""
        minutes, disk = (
            table.get(name, table.get(kind, default))
            for table, default in (
                (self.profile.minutes, resources.minutes),
                (self.profile.disk_mb, resources.disk_mb),
            )
        )
        return replace(resources, minutes=minutes * resources.share, disk_mb=disk)

    def _pretrain(
        self, generator: Generator, dataset: Cell, classes: ClassList, arch: str, generator_seed: int, train_seed: int
    ) -> Trained:
        mark = registry.code_fingerprint("harness.images")
        told = {"name": classes.name, "content": classes.content}
        copy = self.plan.add(
            Cell(
                "extract",
                "training-copy",
                COPY_VERSION,
                {"copy_px": self.profile.dataset.copy_px, "classes": told, **common_form(self.profile)},
                {"dataset": dataset.key},
                work="harness.tasks:training_copy",
                label=dataset.label,
                data=dataset.data,
                fingerprint=mark,
                resources=self.expected("extract", "training-copy", Resources(disk_mb=copy_mb(self.profile, classes))),
            )
        )
        values = dict(self.profile.backbones[arch])
        devices, threads = (_count(f"backbones.{arch}.{name}", values.pop(name, 1)) for name in ("devices", "threads"))
        recipe = PretrainSettings.from_mapping({"arch": arch, **values}).record()
        cell = self.plan.add(
            Cell(
                "pretrain",
                arch,
                PRETRAIN_VERSION,
                {"settings": recipe, "classes": told},
                {"copy": copy.key},
                {"train_seed": train_seed},
                "harness.tasks:pretrain",
                f"{dataset.label} {arch} train {train_seed}",
                fingerprint=registry.code_fingerprint("harness.backbones"),
                resources=self.expected("pretrain", arch, Resources(threads=threads, devices=devices)),
            )
        )
        return Trained(
            cell,
            generator.card.id,
            arch,
            generator_seed,
            train_seed,
            generator.card.told,
            classes,
            content_key(recipe)[:16],
        )

    def _import(self, outside: Outside) -> Trained:
        if not outside.path.is_file():
            raise DataMissing(f"checkpoint {outside.path} does not exist", "no such file", "correct --checkpoint")
        classes, mark = load_classes(outside.classes), file_sha256(outside.path)
        # A data set of one file: where it lies is not part of what it is.
        self.plan.sources[CHECKPOINT] = DataSource(CHECKPOINT, str(outside.path), mark, {})
        params = {
            "sha256": mark,
            "arch": outside.arch,
            "classes": {"name": classes.name, "content": classes.content},
            "mean": outside.mean,
            "std": outside.std,
            "image_size": outside.image_size,
            "weights": outside.weights,
        }
        cell = self.plan.add(
            Cell(
                "pretrain",
                "outside",
                OUTSIDE_VERSION,
                params,
                work="harness.tasks:import_outside",
                label=outside.path.name,
                data=(CHECKPOINT,),
                fingerprint=registry.code_fingerprint("harness.backbones"),
            )
        )
        return Trained(cell, f"checkpoint:{outside.path.stem}-{mark[:6]}", outside.arch, 0, 0, (), classes, "outside")

    def _baseline(self, outside: Outside, baseline: baselines.Baseline) -> Trained:
        classes = load_classes(outside.classes)
        network = baseline.kind == "untrained"
        made = {"arch": outside.arch, "mean": outside.mean, "std": outside.std, "image_size": outside.image_size}
        params = {
            "kind": baseline.kind,
            "class": baseline.class_id,
            "classes": {"name": classes.name, "content": classes.content},
            **(made if network else {}),
        }
        seeds = {"train_seed": 0} if network else {}
        name = f"{baseline.name} {outside.arch}" if network else baseline.name
        work, mark = "harness.baselines:make_baseline", registry.code_fingerprint("harness.baselines")
        cell = Cell(
            "pretrain", "baseline", baselines.VERSION, params, seeds=seeds, work=work, label=name, fingerprint=mark
        )
        arch = outside.arch if network else "baseline"
        return Trained(self.plan.add(cell), name, arch, 0, 0, (), classes, "none", baseline.kind)

    def _measure(self, suite: Suite, trained: Trained, dataset: Cell | None = None) -> None:
        card = suite.card
        if trained.baseline not in ("", "untrained", *card.baselines):
            self.plan.skip(f"{card.id} of {trained.generator}", "it needs a network", False)
            return
        settings = parse_settings(suite.Settings, self.profile.suites.get(card.id, {}), card.id)
        asked = card.id in self.suites_asked
        try:
            items: Sequence[Item] = suite.items(settings, trained.arch)
        except NotPlanned as reason:
            self.plan.skip(f"{card.id} of {trained.arch}", str(reason), False)
            return
        for item in items:
            missing = [name for name in item.data if not self.find(name)]
            if missing:
                self.plan.skip(f"{card.id}", str(self._data[missing[0]]), asked)
                continue
            self._evaluate(suite, settings, item, trained, dataset)

    def _evaluate(self, suite: Suite, settings: Settings, item: Item, trained: Trained, dataset: Cell | None) -> None:
        card, mark = suite.card, registry.plugin_fingerprint(suite)
        subject = {"dataset": dataset.key} if dataset is not None else {"checkpoint": trained.cell.key}
        told = {"name": trained.classes.name, "content": trained.classes.content}
        inputs = dict(subject) if item.checkpoint or dataset is not None else {}
        for need in item.needs:
            cell = self.plan.add(
                Cell(
                    "extract",
                    need.name,
                    need.version,
                    {**need.params, **self.marks(need.data), "classes": told},
                    subject,
                    work=need.work,
                    label=f"{need.name} {trained.cell.label}",
                    data=need.data,
                    fingerprint=registry.work_fingerprint(need.work),
                    resources=self.expected("extract", need.name, need.resources),
                )
            )
            inputs[need.role] = cell.key
        values = settings.model_dump(mode="json")
        facts = {
            "generator": trained.generator,
            "backbone": "-" if dataset is not None else "baseline" if trained.baseline else trained.arch,
            "generator_seed": trained.generator_seed,
            "train_seed": 0 if dataset is not None else trained.train_seed,
            "information": trained.information,
            "profile": self.profile.name,
            "recipe": "" if dataset is not None else trained.recipe,
            "class_list": trained.classes.fingerprint[:16],
        }
        params = {
            "settings": values,
            "item": item.label,
            "item_params": item.params,
            "classes": told,
            "subject": facts,
            "arch": "" if dataset is not None else trained.arch,
            **self.marks(item.data),
            **self.sources(suite, values),
        }
        self.plan.add(
            Cell(
                "evaluate",
                card.id,
                card.version,
                params,
                inputs,
                {"probe_seed": item.probe_seed},
                "harness.tasks:evaluate",
                f"{trained.generator} {trained.arch} {card.id} {item.label}",
                item.data,
                (),
                self.expected("evaluate", card.id, item.resources),
                mark,
                suite.cost(item, settings, {name: source.card for name, source in self._found(item.data).items()}),
            )
        )

    def marks(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what tells the content of data sets apart, for a cell's parameters."""
        return {"data": {name: source.fingerprint for name, source in self._found(names).items()}}

    def _found(self, names: Sequence[str]) -> dict[str, DataSource]:
        sources = {name: self.find(name) for name in names}
        return {name: source for name, source in sources.items() if source is not None}

    def sources(self, plugin: Generator | Suite, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fingerprints of the local model folders that settings name, for a cell's parameters."""
        marks = {}
        for name in plugin.sources:
            folder = local_source(str(values.get(name) or ""))
            if folder is not None:
                if folder not in self._models:
                    self._models[folder] = fingerprint(folder)
                marks[name] = self._models[folder]
        return {"sources": marks}


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"setting {name} is {value!r}", "it is a whole number from 1 on", "correct it")
    return value
