"""Checks of data sets: one line each, with a fix. The suites know the layouts; they are found through the registry."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness.core.classes import load_folder_classes
from harness.core.code import load_attribute
from harness.core.errors import UserError
from harness.core.fingerprints import Fingerprints
from harness.core.settings import parse_settings
from harness.plan.datasets import generator_table
from harness.plan.profile import Profile, load_profile
from harness.plugins import registry
from harness.plugins.common import DataReport
from harness.plugins.generator import Generator
from harness.plugins.inspection import decode_sample, sample_paths
from harness.plugins.registry import Inspector, first_known
from harness.store.data import DONE, DataSource, find_data

ORIGIN = "class folders of real images, such as ILSVRC 2012 from image-net.org"


@dataclass(frozen=True)
class Finding:
    """One check's outcome."""

    check: str
    status: str
    """``ok``, ``warning`` (something is limited) or ``problem`` (something will fail)."""
    text: str
    fix: str = ""


def data_findings(
    profile: str,
    data: Sequence[str],
    overrides: Sequence[str] = (),
    store: Path | None = None,
    only: Collection[str] | None = None,
) -> Iterator[Finding]:
    """Inspect the data sets of a profile, or ``only`` some: presence, layout, counts, classes, hashes, and whether a sample decodes."""
    try:
        resolved = load_profile(profile, overrides, data).profile
    except UserError as error:
        yield Finding(f"profile {profile}", "problem", f"{error.what}: {error.why}", error.fix)
        return
    inspectors, origins = first_known("data_inspectors"), first_known("origins")
    fingerprints = Fingerprints.beside(store)
    for name, settings in resolved.data.items():
        if only is not None and name not in only:
            continue
        try:
            found = find_data(name, settings, fingerprints)
        except Exception as error:  # whatever is found there, the other data sets are inspected
            yield _problem(f"data {name}", error)
            continue
        if isinstance(found, str) and settings.root:
            yield Finding(f"data {name}", "problem", found, "correct the path")
        elif isinstance(found, str):
            fix, origin = f"--data {name}=PATH", ORIGIN if name == resolved.train_data else origins.get(name, "")
            yield Finding(f"data {name}", "warning", f"not provided: {fix}" + (f" ({origin})" if origin else ""), fix)
        elif found.writer and not (Path(found.root) / DONE).is_file():
            yield Finding(f"data {name}", "ok", f"{found.root} (written at first use)")
        else:
            yield _inspect(found, inspectors.get(name), resolved)


def _importer(name: str, root: Path) -> Generator | None:
    """Generator that imports a data set and can inspect it, bound to it where it takes any (``folder:NAME``); None: none."""
    good = [each for each in registry.generators().available()[0] if each.can_inspect]
    family, _, argument = name.partition(":")
    bound = (each.bind(f"{argument}={root}") for each in good if argument and each.card.id == family)
    return next((each for each in good if name in each.card.data), None) or next(bound, None)


def _published_images(importer: Generator, root: Path, profile: Profile) -> DataReport:
    settings = parse_settings(importer.Settings, generator_table(profile, importer), importer.card.id)
    return importer.inspect_data(root, settings, load_folder_classes(profile.classes))


def _inspect(source: DataSource, inspector: str | None, profile: Profile) -> Finding:
    name, root = f"data {source.name}", Path(source.root)
    try:
        if source.name == profile.train_data:
            report = _training_images(root, profile.classes)
        elif inspector is not None:
            report = cast(Inspector, load_attribute(inspector))(source.name, root, source.card)
        elif importer := _importer(source.name, root):
            report = _published_images(importer, root, profile)
        else:
            return Finding(name, "ok", f"{root} (unknown layout, not inspected)")
    except Exception as error:  # readers meet whatever a user's folder holds; one data set must not hide the others
        return _problem(name, error)
    good, damaged = decode_sample(root, report.sample)
    parts = [
        str(root),
        report.layout,
        report.counts,
        report.classes,
        *([f"{good} of {len(report.sample)} sampled images decode"] if report.sample else []),
    ]
    parts += [f"expected hash: {', '.join(report.verified)}"] if report.verified else []
    damage = [*report.wrong, *damaged]
    fixes = ["download or unpack the files named here again"] * bool(damage) + ["answer what is asked"] * bool(
        report.asked
    )
    return Finding(
        name,
        "warning" if fixes else "ok",
        "; ".join([*parts, *damage, *report.asked]),
        "; ".join(fixes),
    )


def _problem(name: str, error: Exception) -> Finding:
    """Finding for an error: the parts of a user error, or the message of an unexpected one, in one line."""
    if isinstance(error, UserError):
        return Finding(name, "problem", f"{error.what}: {error.why}", error.fix)
    words = " ".join(f"{type(error).__name__}: {error}".split())
    fix = "download or unpack the data set again; if it is complete, please report this line"
    return Finding(name, "problem", f"it cannot be read: {words[:300]}", fix)


def _training_images(root: Path, classes: str) -> DataReport:
    """Inspect an ImageFolder of the profile's classes."""
    from harness.images.folder import FolderSource, image_folder

    listed = load_folder_classes(classes)
    folder = image_folder(root)
    source = FolderSource(folder, listed.ids)
    counts = [0] * len(listed)
    for label in source.labels:
        counts[label] += 1
    return DataReport(
        "class folders" + (" in train/" if folder != root else ""),
        f"{len(source.names)} images, {min(counts)} to {max(counts)} per class",
        f"{len(listed)} classes of {listed.name} ({listed.ids_hash[:12]})",
        sample_paths([str(folder / name) for name in source.names]),
    )
