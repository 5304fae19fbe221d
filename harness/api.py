"""Everything a plugin imports: ``from harness.api import Suite, Score, ...``; docs/plugins.md tells the contract.

The names live elsewhere and are loaded when they are first asked for, so that a plugin that only declares a card loads neither
torch nor pandas nor PIL. Import those, and names that need them, inside the functions that use them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.backbones.checkpoint import load_backbone
    from harness.backbones.loaded import ClassifierSpec
    from harness.backbones.ranks import Ranks
    from harness.backbones.ranks import join as join_ranks
    from harness.core.classes import ClassList, coverage, load_classes
    from harness.core.code import load_attribute
    from harness.core.errors import (
        CorruptArtifact,
        DataMissing,
        TrainingFailed,
        UserError,
        first_line,
        refuse_files,
        refuse_malformed,
    )
    from harness.core.files import (
        atomic_path,
        parse_json,
        read_json,
        read_text,
        remove_tree,
        truncate_partial_line,
        write_json,
        write_text,
    )
    from harness.core.hub import HubModel, hub_models
    from harness.core.identity import content_key, derive_seed, file_sha256
    from harness.core.intact import is_zip
    from harness.core.limits import TooLarge, refuse_zip
    from harness.core.normalisation import KNOWN as NORMALISATIONS
    from harness.core.resources import local_source, read_resource, resolve_path
    from harness.core.resume import load_state, save_state
    from harness.core.settings import NoSettings, Settings
    from harness.core.tree import IMAGE_SUFFIXES, find_root
    from harness.core.tree import entries as list_entries
    from harness.core.tree import files as list_files
    from harness.core.tree import folders as list_folders
    from harness.core.tree import unpacking as unpacking_command
    from harness.core.weights import check_finite, check_state, create_open_clip, load_pretrained, refuse_partial
    from harness.images.copy import square as square_crop
    from harness.images.decode import decode as decode_image
    from harness.images.decode import open_picture, picture_header, read_indices
    from harness.images.entries import Entry
    from harness.images.folder import FolderSource, class_images, image_folder
    from harness.images.label_names import match_label_names
    from harness.images.parts import FOLDERS as PART_FOLDERS
    from harness.images.parts import part_of_folder
    from harness.images.published import EntryReader, list_images
    from harness.images.request import Request, Sample
    from harness.plugins.common import DataReport, DerivedInput, ModelReport, Workload
    from harness.plugins.context import Context
    from harness.plugins.generator import Generator, GeneratorCard
    from harness.plugins.inputs import classifier, open_images, write_image_list
    from harness.plugins.inspection import decode_sample, sample_paths
    from harness.plugins.registry import find_generator
    from harness.plugins.suite import ColumnKind, Item, NotPlanned, Score, Suite, SuiteCard
    from harness.run.executor import Executor
    from harness.run.queue import Task
    from harness.run.remote import JobFile
    from harness.stats.agreement import error_consistency
    from harness.stats.difference import Units, flag_units
    from harness.stats.estimate import (
        Estimate,
        FloatArray,
        Statistic,
        bootstrap,
        bootstrap_two_way,
        percentile_estimate,
        proportion,
        ratio,
        resample_strata,
        totals_of,
        undefined,
        wilson,
    )
    from harness.stats.student import quantile as student_quantile
    from harness.store.artifacts import Artifact
    from harness.store.cells import Resources
    from harness.store.records import Check, Metric

__all__ = [
    "IMAGE_SUFFIXES", "NORMALISATIONS", "PART_FOLDERS", "Artifact", "Check", "ClassList", "ClassifierSpec", "ColumnKind", "Context",
    "CorruptArtifact", "DataMissing", "DataReport", "DerivedInput", "Entry", "EntryReader", "Estimate", "Executor", "FloatArray",
    "FolderSource", "Generator", "GeneratorCard", "HubModel", "Item", "JobFile", "Metric", "ModelReport", "NoSettings", "NotPlanned",
    "Ranks", "Request", "Resources", "Sample", "Score", "Settings", "Statistic", "Suite", "SuiteCard", "Task", "TooLarge",
    "TrainingFailed", "Units", "UserError", "Workload", "atomic_path", "bootstrap", "bootstrap_two_way", "check_finite", "check_state",
    "class_images", "classifier", "content_key", "coverage", "create_open_clip", "decode_image", "decode_sample", "derive_seed",
    "error_consistency", "file_sha256", "find_generator", "find_root", "first_line", "flag_units", "hub_models", "image_folder",
    "is_zip", "join_ranks", "list_entries", "list_files", "list_folders", "list_images", "load_attribute", "load_backbone",
    "load_classes", "load_pretrained", "load_state", "local_source", "match_label_names", "open_images", "open_picture", "parse_json",
    "part_of_folder", "percentile_estimate", "picture_header", "proportion", "ratio", "read_indices", "read_json", "read_resource",
    "read_text", "refuse_files", "refuse_malformed", "refuse_partial", "refuse_zip", "remove_tree", "resample_strata", "resolve_path",
    "sample_paths", "save_state", "square_crop", "student_quantile", "totals_of", "truncate_partial_line", "undefined",
    "unpacking_command", "wilson", "write_image_list", "write_json", "write_text",
]  # fmt: skip

_HOMES = {
    "harness.backbones.checkpoint": "load_backbone",
    "harness.backbones.loaded": "ClassifierSpec",
    "harness.backbones.ranks": "Ranks join_ranks=join",
    "harness.core.classes": "ClassList coverage load_classes",
    "harness.core.code": "load_attribute",
    "harness.core.errors": "CorruptArtifact DataMissing TrainingFailed UserError first_line refuse_files refuse_malformed",
    "harness.core.files": "atomic_path parse_json read_json read_text remove_tree truncate_partial_line write_json write_text",
    "harness.core.hub": "HubModel hub_models",
    "harness.core.identity": "content_key derive_seed file_sha256",
    "harness.core.intact": "is_zip",
    "harness.core.limits": "TooLarge refuse_zip",
    "harness.core.normalisation": "NORMALISATIONS=KNOWN",
    "harness.core.resources": "local_source read_resource resolve_path",
    "harness.core.resume": "load_state save_state",
    "harness.core.settings": "NoSettings Settings",
    "harness.core.tree": "IMAGE_SUFFIXES find_root list_entries=entries list_files=files list_folders=folders "
    "unpacking_command=unpacking",
    "harness.core.weights": "check_finite check_state create_open_clip load_pretrained refuse_partial",
    "harness.images.copy": "square_crop=square",
    "harness.images.decode": "decode_image=decode open_picture picture_header read_indices",
    "harness.images.entries": "Entry",
    "harness.images.folder": "FolderSource class_images image_folder",
    "harness.images.label_names": "match_label_names",
    "harness.images.parts": "PART_FOLDERS=FOLDERS part_of_folder",
    "harness.images.published": "EntryReader list_images",
    "harness.images.request": "Request Sample",
    "harness.plugins.common": "DataReport DerivedInput ModelReport Workload",
    "harness.plugins.context": "Context",
    "harness.plugins.generator": "Generator GeneratorCard",
    "harness.plugins.inputs": "classifier open_images write_image_list",
    "harness.plugins.inspection": "decode_sample sample_paths",
    "harness.plugins.registry": "find_generator",
    "harness.plugins.suite": "ColumnKind Item NotPlanned Score Suite SuiteCard",
    "harness.run.executor": "Executor",
    "harness.run.queue": "Task",
    "harness.run.remote": "JobFile",
    "harness.stats.agreement": "error_consistency",
    "harness.stats.difference": "Units flag_units",
    "harness.stats.estimate": "Estimate FloatArray Statistic bootstrap bootstrap_two_way percentile_estimate proportion ratio "
    "resample_strata totals_of undefined wilson",
    "harness.stats.student": "student_quantile=quantile",
    "harness.store.artifacts": "Artifact",
    "harness.store.cells": "Resources",
    "harness.store.records": "Check Metric",
}
"""Module to the names taken from it, ``name=its name there`` where they differ; what the imports above tell type checkers."""
_PLACES = {
    name.partition("=")[0]: (module, name.rpartition("=")[2])
    for module, names in _HOMES.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    """Load a name from where it lives (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return list(__all__)
