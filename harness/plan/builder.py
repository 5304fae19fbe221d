"""What the parts of a plan are built with: the plan so far, the data sets that exist, expected times, and hashes of inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from harness.core.code import load_attribute
from harness.core.errors import UserError
from harness.core.fingerprints import Fingerprints
from harness.core.settings import Settings
from harness.plan.model import Plan
from harness.plan.profile import Profile
from harness.plugins.border import plugin_errors
from harness.plugins.common import ModelReport
from harness.plugins.generator import Generator
from harness.store.cells import Kind, Resources
from harness.store.data import DataSettings, DataSource, find_data, model_files

LayoutCheck = Callable[[str, Path, Mapping[str, Any]], None]
_COMMIT = re.compile("[0-9a-f]{7,40}")


class Builder:
    """The plan so far, and what is known of its inputs."""

    def __init__(
        self, profile: Profile, assume_present: Mapping[str, DataSource] | None = None, store: Path | None = None
    ) -> None:
        """Build with the data sets that exist; with ``assume_present`` ones as if all others existed too, to know the cost.

        Hashes of large files are kept beside ``store``.
        """
        self.profile, self.assume = profile, assume_present is not None
        self.plan = Plan()
        self.fingerprints = Fingerprints.beside(store)
        self._data: dict[str, DataSource | str] = dict(assume_present or {})
        self._unreadable: dict[str, str] = {}
        self._models: dict[Path, str] = {}
        self._reports: dict[str, tuple[ModelReport, ...]] = {}

    def find(self, name: str, bound_data: Mapping[str, str] = MappingProxyType({})) -> DataSource | None:
        """Return a data set of the profile, or of the roots given; None where it is not there."""
        if name not in self._data:
            settings = DataSettings(root=bound_data[name]) if name in bound_data else self.profile.data.get(name)
            self._data[name] = (
                DataSource(name, "", "assumed", {})
                if self.assume
                else find_data(name, settings, self.fingerprints)
                if settings
                else f"profile {self.profile.name!r} has no data set {name!r}"
            )
        found = self._data[name]
        if isinstance(found, DataSource):
            self.plan.sources[name] = found
            return found
        return None

    def why_unreadable(self, name: str, check: str) -> str:
        """Return why a data set that is there cannot be read, by a suite's check of its layout; empty where it can.

        Embedded data sets and those that are assumed to be there are not looked at.
        """
        source = self.find(name)
        if not check or source is None or not source.root or source.writer or self.assume:
            return ""
        if name not in self._unreadable:
            try:
                cast(LayoutCheck, load_attribute(check))(name, Path(source.root), source.card)
                self._unreadable[name] = ""
            except UserError as error:
                self._unreadable[name] = f"{error.what}: {error.why}; {error.fix}"
        return self._unreadable[name]

    def why_missing(self, name: str) -> str:
        """Return why a data set that was looked for is not there."""
        return str(self._data[name])

    def expected(self, kind: Kind, name: str, resources: Resources) -> Resources:
        """Return resources with the profile's expectation of the time and the disk."""
        minutes, disk = (
            table.get(f"{kind}/{name}", table.get(name, table.get(kind, default)))
            for table, default in (
                (self.profile.minutes, resources.minutes),
                (self.profile.disk_mb, resources.disk_mb),
            )
        )
        return replace(resources, minutes=minutes * resources.time_fraction, disk_mb=disk)

    def data_hashes(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the hashes of some data sets, for a cell's parameters."""
        return {"data": {name: source.data_hash for name, source in self.found(names).items()}}

    def found(self, names: Sequence[str]) -> dict[str, DataSource]:
        """Return those of some data sets that are there."""
        sources = {name: self.find(name) for name in names}
        return {name: source for name, source in sources.items() if source is not None}

    def model_reports(self, generator: Generator, settings: Settings) -> Sequence[ModelReport]:
        """Return how the models that some settings name will be read.

        Raises:
            UserError: one of them cannot be used.
        """
        key = f"{generator.card.id} {settings.model_dump_json()}"
        if key not in self._reports:
            with plugin_errors(generator):
                self._reports[key] = tuple(generator.inspect_models(settings))
        return self._reports[key]

    def model_notes(self, generator: Generator, settings: Settings, names: Container[str]) -> dict[str, Any]:
        """Return what differs from the published form in the models of some settings, for a cell's parameters.

        Nothing where all are as published, and for a plan with assumed data, whose models need not be usable.
        """
        if self.assume:
            return {}
        reports = (each for each in self.model_reports(generator, settings) if each.setting in names)
        notes = {each.setting: list(each.notes) for each in reports if each.notes}
        return {"models": notes} if notes else {}

    def model_hashes(self, names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hashes of the local model files and folders that some settings name, for a cell's parameters.

        Raises:
            UserError: a hub model without a commit.
        """
        hashes = {}
        for name in names:
            location = str(values.get(name) or "")
            folder = model_files(location)
            if folder is not None:
                if folder not in self._models:
                    self._models[folder] = self.fingerprints.model(folder)
                hashes[name] = self._models[folder]
            elif location.startswith("hub:") and not _COMMIT.fullmatch(location.partition("@")[2]):
                raise UserError(
                    f"the hub model {location} is not pinned",
                    "a branch or tag can come to name other weights under the same key",
                    "name the commit, as in hub:OWNER/NAME@COMMIT",
                )
        return {"sources": hashes}
