"""What stands beside the rows of an evaluation: facts of the network that was measured, and what its data contradict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.preprocessing import BACKBONE, NAMES
from harness.scoring import Measured, artifacts

if TYPE_CHECKING:
    from harness.contracts import Suite
    from harness.work import Context

STATED = ("arch", "mean", "std", "image_size", "weights_asked", "seed", "samples", "steps")
"""Entries of ``backbone.json``'s recipe that are stated elsewhere, or are seeds and counts of one training."""


def measured_with(ctx: Context, suite: Suite, inputs: Mapping[str, str]) -> Measured:
    """Return the facts of an evaluation.

    Args:
        ctx: The evaluation.
        suite: Its suite.
        inputs: What everything was made from, see ``lineage``.
    """
    facts = network_facts(ctx.out.parent.parent, inputs)
    return Measured(facts and _network(facts), tuple(facts.get("warnings", ())), ())


def network_facts(store: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of ``backbone.json`` of the checkpoint that an evaluation goes back to; empty where there is none."""
    for path, key in sorted(inputs.items()):
        if path.split("/")[-1] == "checkpoint":
            for folder in artifacts(store, key):
                if (folder / BACKBONE).is_file():
                    found: dict[str, Any] = json.loads((folder / BACKBONE).read_text(encoding="utf-8"))
                    return found
    return {}


def _network(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes numbers of one network comparable: weights, preprocessing, and the recipe of its training."""
    recipe = {name: value for name, value in facts["recipe"].items() if name not in STATED}
    known = {"crop": 0.875, "precision": "fp32", **facts}
    return {"weights": facts["weights"], **{name: known[name] for name in NAMES}, "recipe": recipe}
