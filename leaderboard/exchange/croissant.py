"""A dataset as Croissant 1.0 with the fields of responsible AI (RAI 1.0), built and validated by ``mlcroissant``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from harness.core.errors import UserError
from leaderboard.exchange.card import DECLARED, UNCHECKED, Facts, limitations, sentence
from leaderboard.exchange.datasets import INDEX, SOURCE
from leaderboard.exchange.results import PROJECT, cleaned

FILE = "croissant.json"
CONFORMS = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
_MISSING = ("Croissant needs mlcroissant", "it is not installed", "pip install 'databias-harness[export]'")
TEXT, INTEGER = "https://schema.org/Text", "https://schema.org/Integer"
IMAGE = "https://schema.org/ImageObject"
COLUMNS = {"path": TEXT, "class_index": INTEGER, "wnid": TEXT, "index": INTEGER, "prompt": TEXT, "negative_prompt": TEXT,
           "seed": INTEGER, "sha1": TEXT, "parent": TEXT}  # fmt: skip
"""Columns of ``images.jsonl`` that a record of it has."""


def to_json(facts: Facts) -> str:
    """Return the Croissant description of a dataset.

    Raises:
        UserError: ``mlcroissant`` is not installed, or refuses the description.
    """
    try:
        import mlcroissant as mlc
    except ImportError as error:
        raise UserError(*_MISSING) from error
    with _refusals(mlc):
        described = cleaned(_metadata(mlc, facts).to_json())
        mlc.Dataset(jsonld=deepcopy(described))  # which writes into what it is given
    return json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


@contextmanager
def _refusals(mlc: Any) -> Iterator[None]:
    """Turn what the validator says into an error for the user, and keep its remarks off the terminal."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    except mlc.ValidationError as error:
        raise UserError(
            "mlcroissant refuses the description", " ".join(str(error).split()), "report this as a bug"
        ) from error
    finally:
        logging.set_verbosity(before)


def _metadata(mlc: Any, facts: Facts) -> Any:
    d, said = facts.dataset, facts.declared
    ctx = mlc.Context(conforms_to=CONFORMS[0])
    return mlc.Metadata(
        ctx=ctx, conforms_to=CONFORMS, name=facts.name, description=" ".join(filter(None, (facts.title + ".", said.get("summary")))),
        license=[said.get("licence") or "not stated"], cite_as=said.get("citation") or None,
        date_created=None if d.completed is None else datetime.fromtimestamp(int(d.completed), UTC),
        version=f"{d.manifest['spec'].get('version', 1)}.0.0", keywords=["image classification", PROJECT],
        distribution=_files(mlc, ctx, facts), record_sets=_records(mlc, ctx, facts), **_responsible(facts),
    )  # fmt: skip


# --- RAI ------------------------------------------------------------------------------------------------------------------


def _responsible(facts: Facts) -> dict[str, Any]:
    d, said = facts.dataset, facts.declared
    base = said.get("base model", "none")
    persons = "Nothing about persons was recorded, and whether images show persons was not examined."
    return {
        "data_collection": _collection(facts),
        "data_collection_type": ["Secondary Data analysis" if facts.listed else "Software Collection"],
        "data_collection_raw_data": f"Declared base model: {base}. Supervision: {', '.join(facts.supervision) or 'not stated'}.",
        "data_preprocessing_protocol": None if facts.listed else [f"{d.params['dataset']['size_px']} pixels a side, PNG without metadata."],
        "data_annotation_protocol": ["Labels are those of the listed data set." if facts.listed else UNCHECKED],
        "annotations_per_item": None if facts.listed else "0",
        "data_biases": [sentence(one) + "." for one in facts.biases] or ["No bias was measured on these images."],
        "data_limitations": limitations(facts) or None,
        "data_use_cases": ["Pre-training of image classifiers, and comparing the bias of training data. Other uses were not examined."],
        "personal_sensitive_information": [persons],
    }  # fmt: skip


def _collection(facts: Facts) -> str:
    d, said = facts.dataset, facts.declared
    parts = [f"{'Listed' if facts.listed else 'Made'} by the generator {d.generator}"]
    parts += [f"{name} {value}" for name, value in d.seeds.items()]
    parts += [f"{name} = {text}" for name, text in d.settings.items()]
    parts += [f"declared {name}: {said[name]}" for name in (*DECLARED, "prompts") if said.get(name, "none") != "none"]
    return "; ".join(parts) + "."


# --- files and records ----------------------------------------------------------------------------------------------------


def _files(mlc: Any, ctx: Any, facts: Facts) -> list[Any]:
    """Return the list of images and the tar files, in the folder of the artifact.

    The folder's name holds the key: mlcroissant takes archives of equal relative addresses for the same, whatever they hold
    (``findings/croissant-archives-of-equal-name.sh``).
    """
    d, listed = facts.dataset, facts.dataset.manifest["files"]
    kinds = {INDEX: "application/jsonlines", SOURCE: "application/json"}
    found = [
        mlc.FileObject(ctx=ctx, id=name, name=name, content_url=f"{d.folder.name}/{name}", content_size=f"{listed[name]['bytes']} B",
                       sha256=listed[name]["sha256"], encoding_formats=[kinds.get(name, "application/x-tar")])
        for name in (INDEX, *([SOURCE] if SOURCE in listed else []), *d.shards)
    ]  # fmt: skip
    if d.shards:
        found.append(mlc.FileSet(ctx=ctx, id="image-files", name="image-files", contained_in=list(d.shards),
                                 encoding_formats=["image/png"], includes=["*/*.png"]))  # fmt: skip
    return found


def _records(mlc: Any, ctx: Any, facts: Facts) -> list[Any]:
    d = facts.dataset
    names = COLUMNS if d.shards else {"path": TEXT, "class_index": INTEGER}
    list_fields = [
        mlc.Field(ctx=ctx, id=f"list/{name}", name=f"list/{name}", data_types=[kind],
                  source=mlc.Source(ctx=ctx, file_object=INDEX, extract=mlc.Extract(ctx=ctx, column=name)))
        for name, kind in names.items()
    ]  # fmt: skip
    found = [
        _classes(mlc, ctx, facts),
        mlc.RecordSet(ctx=ctx, id="list", name="list", key=["list/path"], fields=list_fields),
    ]
    if d.shards:
        found.append(mlc.RecordSet(ctx=ctx, id="images", name="images", fields=_image_fields(mlc, ctx)))
    return found


def _classes(mlc: Any, ctx: Any, facts: Facts) -> Any:
    d = facts.dataset
    fields = [
        mlc.Field(ctx=ctx, id=f"classes/{name}", name=f"classes/{name}", data_types=[TEXT]) for name in ("id", "name")
    ]
    rows = [{"classes/id": one, "classes/name": d.names.get(one, one)} for one in d.count.classes]
    return mlc.RecordSet(ctx=ctx, id="classes", name="classes", key=["classes/id"], fields=fields, data=rows)


def _image_fields(mlc: Any, ctx: Any) -> list[Any]:
    """Return picture, path and class of a file in the tar files; the class is the folder."""

    def field(name: str, kind: str, wanted: str, **more: Any) -> Any:
        source = mlc.Source(ctx=ctx, file_set="image-files", extract=mlc.Extract(ctx=ctx, file_property=wanted), **more)
        return mlc.Field(ctx=ctx, id=f"images/{name}", name=f"images/{name}", data_types=[kind], source=source)

    label = field("class", TEXT, "fullpath", transforms=[mlc.Transform(ctx=ctx, regex="^([^/]+)/")])
    return [field("image", IMAGE, "content"), field("path", TEXT, "fullpath"), label]
