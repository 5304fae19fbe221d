"""What stands beside the rows of an evaluation: facts of the network that was measured, and what its data contradict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.backbones.preprocessing import BACKBONE, NAMES
from harness.core.code import load_attribute
from harness.core.errors import UserError
from harness.core.files import parse_json
from harness.core.places import without_places
from harness.plugins.registry import Inspector, first_known
from harness.run.scoring import MEASURED, Measured, artifacts
from harness.store.artifacts import Artifact, read_manifest

if TYPE_CHECKING:
    from harness.plan.model import Plan
    from harness.plugins.context import Context
    from harness.plugins.suite import Suite
    from harness.store.artifacts import Store

_LOOKED_AT: dict[tuple[str, str, str], tuple[str, ...]] = {}
"""Name, root and fingerprint of a data set -> what was found; for the life of a worker."""

STATED = ("arch", "mean", "std", "image_size", "weights_asked", "left_out", "seed", "samples", "steps")
"""Entries of ``backbone.json``'s recipe that are stated elsewhere, are no part of the network, or are seeds and counts of one training."""


def measured_with(ctx: Context, suite: Suite, inputs: Mapping[str, str]) -> Measured:
    """Return the facts of an evaluation.

    Args:
        ctx: The evaluation.
        suite: Its suite.
        inputs: What everything was made from, see ``lineage``.
    """
    facts = network_facts(ctx.out.parent.parent, inputs)
    if facts and suite.precision:
        facts["precision"] = suite.precision
    store = ctx.out.parent.parent
    notes = (*facts.get("warnings", ()), *ctx.params.get("warnings", ()), *model_notes(store, inputs))
    places = {ctx.sources[name].root: name for name in ctx.cell.data}
    told = (tuple(without_places(line, places) for line in lines) for lines in (notes, findings(ctx, suite)))
    return Measured(facts and _network(facts), *told)


def findings(ctx: Context, suite: Suite) -> Iterator[str]:
    """Yield what a look at each data set of an evaluation finds to contradict what is expected of it, a sentence each.

    A data set is looked at once per worker, as ``doctor`` does it: lists are read, files counted, and compared with published
    hashes where those are known. Nothing is decoded.
    """
    for name in ctx.cell.data:
        source = ctx.sources[name]
        key = (name, source.root, source.data_hash)
        if key not in _LOOKED_AT:
            look = suite.data_inspectors.get(name) or first_known("data_inspectors").get(name, "")
            _LOOKED_AT[key] = tuple(_contradictions(look, name, ctx.data(name), source.card)) if look else ()
        yield from (f"{name}: {line}" for line in _LOOKED_AT[key])


def _contradictions(look: str, name: str, root: Path, card: Mapping[str, Any]) -> Iterable[str]:
    try:
        report = cast(Inspector, load_attribute(look))(name, root, card)
    except UserError as error:
        return (f"{error.what}: {error.why}",)
    except Exception as error:  # the rows are measured: what a look stumbles over must not take them away
        return (f"it could not be inspected ({type(error).__name__}: {error})",)
    return report.wrong


def found_in(store: Store, plan: Plan) -> list[str]:
    """Return the findings of all evaluations of a plan that are done, each once, in the order of the plan."""
    lines: dict[str, None] = {}
    for cell in plan.cells.values():
        path = store.folder(cell) / MEASURED
        if cell.kind == "evaluate" and path.is_file():
            with suppress(
                ValueError, KeyError, TypeError
            ):  # a damaged file is named by whoever reads the record beside it
                lines |= dict.fromkeys(Measured.from_json(parse_json(path.read_text(encoding="utf-8"))).findings)
    return list(lines)


def network_facts(store: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of ``backbone.json`` of the checkpoint that an evaluation goes back to; empty where there is none."""
    for path, key in sorted(inputs.items()):
        if path.split("/")[-1] == "checkpoint":
            for folder in artifacts(store, key):
                manifest = read_manifest(folder)
                if manifest is not None and BACKBONE in manifest["files"]:
                    found: dict[str, Any] = Artifact(folder, manifest).json(BACKBONE)
                    return found
    return {}


def model_notes(store: Path, inputs: Mapping[str, str]) -> list[str]:
    """Return what differs from the published form in the models that an evaluation goes back to, each once."""
    lines: dict[str, None] = {}
    for key in inputs.values():
        for folder in artifacts(store, key):
            spec = (read_manifest(folder) or {}).get("spec", {})
            for setting, notes in sorted(spec.get("params", {}).get("models", {}).items()):
                lines |= dict.fromkeys(f"{spec['name']}: {setting}: {note}" for note in notes)
    return list(lines)


def _network(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes numbers of one network comparable: weights, preprocessing, and the recipe of its training."""
    recipe = {name: value for name, value in facts["recipe"].items() if name not in STATED}
    known = {"crop": 0.875, "precision": "fp32", **facts}
    # A plain state dict does not say whether it is an average; its file is known by its hash, so nothing hangs on the word.
    weights = "" if facts["recipe"].get("entry") == "" else facts["weights"]
    return {"weights": weights, **{name: known[name] for name in NAMES}, "recipe": recipe}
