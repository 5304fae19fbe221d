"""The cells that make one dataset: what a generator needs, its fit, and its synthesis in shards or its import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.core.classes import ClassList
from harness.core.code import code_hash
from harness.core.settings import Settings, parse_settings
from harness.images.request import shards
from harness.plugins.border import plugin_errors
from harness.plugins.code import fit_code, synthesis_code
from harness.plugins.common import Workload
from harness.plugins.generator import Generator
from harness.plugins.registry import find_generator
from harness.store.cells import Cell, Resources

if TYPE_CHECKING:
    from harness.plan.builder import Builder
    from harness.plan.profile import Profile


def generator_table(profile: Profile, generator: Generator) -> dict[str, Any]:
    """Return the profile's settings of a generator: those of the one it varies, but for its own fields, then its own.

    Of a bound generator (``folder:a``) those of its family (``folder``) hold, but for those of its full name.
    """
    name = generator.card.id
    family = merged(profile.generators.get(name.partition(":")[0], {}), profile.generators.get(name, {}))
    inherited = profile.generators.get(generator.inherits, {}) if generator.inherits else {}
    return {key: value for key, value in inherited.items() if key not in generator.overrides} | family


def merged(table: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another over it, key by key in tables within."""
    return dict(table) | {
        key: merged(table[key], value) if isinstance(value, Mapping) and isinstance(table.get(key), Mapping) else value
        for key, value in own.items()
    }


def common_form(profile: Profile) -> dict[str, Any]:
    """Return the common count and codec of all training copies; nothing where images stay as they are."""
    size = profile.dataset
    if not size.common_count and not size.common_codec:
        return {}
    return {"common": {"count": size.common_count, "codec": size.common_codec, "px": size.common_px}}


def dataset_cell(
    builder: Builder, generator: Generator, settings: Settings, classes: ClassList, generator_seed: int
) -> Cell:
    """Add the cells of one dataset to the plan and return the last one, whose artifact is the dataset."""
    values = settings.model_dump(mode="json")
    inputs = _needs(builder, generator, settings, classes) | _parts(builder, generator, classes, generator_seed)
    if generator.fits(settings):
        inputs = inputs | {"weights": _fit(builder, generator, settings, classes, inputs, generator_seed).key}
    card, size = generator.card, builder.profile.dataset
    data = generator.data(settings)
    if card.real and builder.find(card.real):
        data = (*data, card.real)
    made = {k: v for k, v in values.items() if k not in generator.fit_fields}
    params = {
        "settings": made,
        "classes": classes.key(),
        **builder.model_hashes(generator.path_settings(made), made),
        **builder.model_notes(generator, settings, made),
        **builder.data_hashes(data),
        "dataset": {"images_per_class": size.images_per_class, "chunk": size.chunk, "size_px": size.size_px},
        **({"parts": dict(generator.parts)} if generator.parts else {}),
    }
    return builder.plan.add(
        Cell(
            "synthesise",
            card.id,
            card.version,
            params,
            inputs,
            {} if generator.imports and not generator.parts else {"generator_seed": generator_seed},
            generator.import_callable_path if generator.imports else "harness.run.tasks:synthesise",
            f"{card.id} seed {generator_seed}",
            data,
            () if generator.imports else shards(classes, size.images_per_class, size.chunk),
            builder.expected("synthesise", card.id, _synthesis(builder.profile, generator, settings, classes)),
            synthesis_code(generator),
        )
    )


def dataset_inputs(dataset: Cell) -> dict[str, str]:
    """Return the inputs by which a cell reads a dataset: its list and, of one drawn from others, those that hold its images."""
    parts = {role: key for role, key in dataset.inputs.items() if role.startswith(_PART)}
    return {"dataset": dataset.key, **{f"dataset/{role}": key for role, key in parts.items()}}


def part_generators(builder: Builder, generator: Generator) -> list[tuple[Generator, Settings]]:
    """Return the generators whose datasets one is drawn from, with their settings in the profile."""
    found = []
    for name in generator.parts:
        part = find_generator(name)
        found.append((part, parse_settings(part.Settings, generator_table(builder.profile, part), name)))
    return found


def _parts(builder: Builder, generator: Generator, classes: ClassList, generator_seed: int) -> dict[str, str]:
    inputs = {}
    for place, (part, settings) in enumerate(part_generators(builder, generator)):
        with plugin_errors(part):
            inputs[f"{_PART}{place}"] = dataset_cell(builder, part, settings, classes, generator_seed).key
    return inputs


_PART = "part-"
PNG_BYTES = 1.8
"""Bytes per pixel of a photograph as PNG."""
INDEX_BYTES = 400
"""Bytes per image of the list of a data set."""


def copy_mb(profile: Profile, classes: ClassList) -> float:
    """Return the megabytes of a training copy: squares of three bytes per pixel."""
    size = profile.dataset
    return len(classes.ids) * (size.common_count or size.images_per_class) * 3 * size.copy_px**2 / 1e6


def _synthesis(profile: Profile, generator: Generator, settings: Settings, classes: ClassList) -> Resources:
    """Return what a shard needs; of an import, which lists its images, what the list needs."""
    size, resources = profile.dataset, generator.synthesis_resources(settings)
    if generator.imports:
        return replace(resources, disk_mb=len(classes.ids) * size.images_per_class * INDEX_BYTES / 1e6)
    images = size.images_per_class / -(-size.images_per_class // size.chunk)
    return replace(resources, disk_mb=images * (PNG_BYTES * size.size_px**2 + INDEX_BYTES) / 1e6)


def image_count(profile: Profile, classes: ClassList) -> int:
    """Return about how many images a data set of these classes has, before any is counted."""
    return len(classes) * profile.dataset.images_per_class


def estimated(resources: Resources, workload: Workload | None) -> Resources:
    """Return resources with the time that a workload is expected to take."""
    return resources if workload is None else replace(resources, minutes=workload.minutes)


def _needs(builder: Builder, generator: Generator, settings: Settings, classes: ClassList) -> dict[str, str]:
    inputs = {}
    for need in generator.derived_inputs(settings):
        settings_read = need.params.get("settings", {})
        images = image_count(builder.profile, classes)
        workload = Workload(images, "images", need.per_second) if need.per_second else None
        cell = builder.plan.add(
            Cell(
                "extract",
                need.name,
                need.version,
                {
                    **need.params,
                    **builder.model_hashes(generator.path_settings(settings_read), settings_read),
                    **builder.data_hashes(need.data),
                    "classes": classes.key(),
                },
                callable_path=need.callable_path,
                label=f"{need.name} of {', '.join(need.data)}",
                data=need.data,
                code_hash=code_hash(need.callable_path),
                resources=builder.expected("extract", need.name, estimated(need.resources, workload)),
                cost=str(workload or ""),
            )
        )
        inputs[need.role] = cell.key
    return inputs


def _fit(
    builder: Builder,
    generator: Generator,
    settings: Settings,
    classes: ClassList,
    inputs: Mapping[str, str],
    generator_seed: int,
) -> Cell:
    card, data = generator.card, generator.data(settings)
    values = settings.model_dump(mode="json")
    shaping = {k: v for k, v in values.items() if k in (*generator.fit_fields, *generator.shared_fields)}
    classes = generator.fit_classes(settings, classes)
    params = {
        "settings": shaping,
        "classes": classes.key(),
        **builder.model_hashes(generator.path_settings(shaping), shaping),
        **builder.model_notes(generator, settings, shaping),
    }
    workload = generator.fit_workload(settings, len(classes), image_count(builder.profile, classes))
    return builder.plan.add(
        Cell(
            "fit",
            card.id,
            card.version,
            params | (builder.data_hashes(data) if data else {}),
            inputs,
            seeds={"generator_seed": generator_seed},
            callable_path="harness.run.tasks:fit",
            code_hash=fit_code(generator),
            resources=builder.expected("fit", card.id, estimated(generator.fit_resources(settings), workload)),
            cost=str(workload or ""),
            label=f"{card.id} seed {generator_seed}",
            data=data,
        )
    )
