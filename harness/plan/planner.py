"""Plans: from a selection to the DAG of cells. Pure but for looking where data is; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.core.classes import load_folder_classes
from harness.core.errors import DataMissing, UserError
from harness.core.names import did_you_mean, matches, names_in
from harness.core.settings import Settings, parse_settings
from harness.plan.backbones import baseline_of, imported, pretrained
from harness.plan.builder import Builder
from harness.plan.datasets import dataset_cell, generator_table, part_generators
from harness.plan.model import Plan, PlannedSubject, Selection
from harness.plan.suites import measured
from harness.plugins import registry
from harness.plugins.border import PluginFailed, plugin_errors
from harness.plugins.generator import Generator
from harness.plugins.suite import Suite
from harness.store.cells import Cell
from harness.store.data import DataSource


class Planner:
    """Builds one plan."""

    def __init__(
        self, selection: Selection, assume_present: Mapping[str, DataSource] | None = None, store: Path | None = None
    ) -> None:
        """Plan with what is there; with ``assume_present`` data as if all the rest were there too, to know what it would cost.

        Hashes of large files are kept beside ``store``.
        """
        self.selection, self.profile = selection, selection.profile
        self.builder = Builder(self.profile, assume_present, store)
        self.plan = self.builder.plan
        self.suite_ids, self.suites_asked = registry.suites().expand(selection.suites)
        self._check_tables()
        self._name_left_out()

    def build(self) -> Plan:
        """Return the plan.

        Raises:
            UserError: an unknown name or setting.
            PluginFailed: the code of the only generator or the only suite failed.
        """
        for trained, dataset in self._subjects():
            for suite_id in self.suite_ids:
                self._measure(registry.suites().get(suite_id), trained, dataset)
        self._prune()
        return self.plan

    def _measure(self, suite: Suite, trained: PlannedSubject, dataset: Cell | None) -> None:
        """Add a suite's evaluations; one whose code fails is not run, and harms no other unless it is the only one asked for."""
        asked, before = suite.card.id in self.suites_asked, dict(self.plan.cells)
        try:
            if suite.card.subject == "backbone":
                measured(self.builder, suite, trained, asked=asked)
            elif dataset is not None:
                measured(self.builder, suite, trained, dataset, asked=asked)
        except PluginFailed as error:
            if self.suite_ids == (suite.card.id,):
                raise
            self.plan.cells = before
            self.plan.skip(suite.card.id, error.fault, asked, failed=True)

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
                if name not in known and not self._binds(table, name):
                    raise UserError(
                        f"profile {self.profile.name!r} sizes an unknown entry '{table}.{name}'",
                        f"registered {table}: {', '.join(known)}",
                        f"{did_you_mean(name, known)}correct the key",
                    )

        known_data = {name for plugin in self._plugins() for name in plugin.card.data} | {"train"}
        for name in self.profile.data:
            if name not in known_data:
                raise UserError(
                    f"no generator or suite reads a data set called {name!r}",
                    f"names in use: {', '.join(sorted(known_data))}",
                    f"{did_you_mean(name, sorted(known_data))}correct --data or the profile",
                )

    @staticmethod
    def _binds(table: str, name: str) -> bool:
        """Return whether a name such as ``folder:a`` belongs to a generator that takes an argument."""
        family, colon, _ = name.partition(":")
        if table != "generators" or not colon or family not in registry.generators().ids():
            return False
        return registry.generators().get(family).takes_argument

    @staticmethod
    def _plugins() -> Iterator[Generator | Suite]:
        yield from registry.generators().available()[0]
        yield from registry.suites().available()[0]

    def plugins(self) -> Iterator[tuple[Generator | Suite, Settings]]:
        """Yield the generators, those that a mix is drawn from, and the suites of the selection, each with its settings."""
        for generator, _ in self._generators(*registry.generators().expand(self.selection.generators)):
            own = parse_settings(generator.Settings, generator_table(self.profile, generator), generator.card.id)
            yield from ((generator, own), *part_generators(self.builder, generator))
        for suite in map(registry.suites().get, self.suite_ids):
            yield suite, parse_settings(suite.Settings, self.profile.suites.get(suite.card.id, {}), suite.card.id)

    def _name_left_out(self) -> None:
        """Name the broken plugins wherever a group is asked for: a group leaves them out."""
        for text, found in (
            (self.selection.generators, registry.generators()),
            (self.selection.suites, registry.suites()),
        ):
            asked = {part.strip() for part in text.split(",")} & set(found.groups())
            for broken in found.available()[1] if asked else ():
                self.plan.note(
                    f"{', '.join(sorted(asked))} leaves out {found.kind} {broken.id} ({broken.origin}): {broken.reason}"
                )

    def _subjects(self) -> Iterator[tuple[PlannedSubject, Cell | None]]:
        external = self.selection.external
        if external is not None and external.baseline is not None:
            yield baseline_of(self.builder, external, external.baseline), None
            return
        if external is not None:
            yield imported(self.builder, external), None
            return
        ids, asked = registry.generators().expand(self.selection.generators)
        classes = load_folder_classes(self.profile.classes)
        for generator, by_name in self._generators(ids, asked):
            what = f"generator {generator.card.id}"
            try:
                settings = parse_settings(
                    generator.Settings, generator_table(self.profile, generator), generator.card.id
                )
                missing = self._missing(generator, settings)
                if missing and not self.builder.assume:
                    self.plan.skip(what, missing, by_name)
                    continue
                for seeds in self._seeds():
                    with plugin_errors(generator):
                        dataset = dataset_cell(self.builder, generator, settings, classes, seeds[0])
                    for arch in self._archs():
                        yield pretrained(self.builder, generator, dataset, classes, arch, seeds), dataset
            except DataMissing as error:
                self.plan.skip(what, f"{error.what}: {error.why}", by_name)
            except PluginFailed as error:
                if len(ids) == 1:
                    raise
                self.plan.skip(what, error.fault, by_name, failed=True)

    def _missing(self, generator: Generator, settings: Settings) -> str:
        """Return what a generator, or one whose images it is drawn from, lacks for a run; empty: nothing."""
        with plugin_errors(generator):
            wanted, lacking = generator.data(settings), generator.missing(settings)
        absent = [data for data in wanted if not self.builder.find(data, generator.bound_data)]
        if absent:
            return self.builder.why_missing(absent[0])
        if lacking or self.builder.assume:
            return lacking
        parts = part_generators(self.builder, generator)
        found = ((part.card.id, self._missing(part, part_settings)) for part, part_settings in parts)
        return next(
            (f"{name}: {why}" for name, why in found if why),
            self._unusable(generator, settings),
        )

    def _unusable(self, generator: Generator, settings: Settings) -> str:
        """Why the models that the settings name cannot be used, and what to do; empty if they can. Other forms are noted."""
        try:
            for report in self.builder.model_reports(generator, settings):
                for note in report.notes:
                    self.plan.note(f"{generator.card.id}: {report.setting}: {note}")
        except PluginFailed:
            raise
        except UserError as error:
            return f"{error.what}: {error.why}; {error.fix}"
        return ""

    def _generators(self, ids: Sequence[str], asked: frozenset[str]) -> list[tuple[Generator, bool]]:
        """Return the generators and whether each was named.

        An import whose folder is not given gives way to its stand-in, unless a group of imports asks for it. A folder
        that is given and not there is a mistake, and never answered with other images.
        """
        groups = {part.strip() for part in self.selection.generators.split(",")}
        replaceable = {*asked, *(registry.generators().groups()["all"] if "all" in groups else ())}
        found: dict[str, tuple[Generator, bool]] = {}
        for name in ids:
            generator, by_name = registry.generators().get(name), name in asked
            if generator.card.fallback and name in replaceable and not self._given(generator.card.data):
                self.plan.note(
                    f"{name} -> {generator.card.fallback}: no folder given (--data {generator.card.data[0]}=PATH)"
                )
                generator = registry.generators().get(generator.card.fallback)
            by_name = by_name or found.get(generator.card.id, (generator, False))[1]
            found[generator.card.id] = (generator, by_name)
        return list(found.values())

    def _given(self, names: Sequence[str]) -> bool:
        """Return whether the user or the profile says where data sets are, whatever lies there."""
        known = self.profile.data
        return all(name in known and (known[name].root or known[name].writer) for name in names)

    def _seeds(self) -> list[tuple[int, int]]:
        vary = self.selection.vary or self.profile.vary
        both = vary in ("all", "generator")
        return [(seed if both else 0, seed if vary != "generator" else 0) for seed in range(self.selection.seeds)]

    def _archs(self) -> tuple[str, ...]:
        known = tuple(self.profile.backbones)
        patterns = names_in(self.selection.backbones)
        asked = tuple(dict.fromkeys(arch for each in patterns for arch in matches(each, known, "backbone"))) or known
        for arch in asked:
            if arch not in known:
                raise UserError(
                    f"unknown backbone {arch!r}",
                    f"profile {self.profile.name!r} has {', '.join(known)}",
                    f"{did_you_mean(arch, known)}add [backbones.{arch}] to a profile of your own",
                )
        return asked
