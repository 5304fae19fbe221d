"""``python -m harness check NAME``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.conformance.generators import check_generator, find_generator
from harness.conformance.outcome import Outcome, guard, render
from harness.conformance.suites import check_suite
from harness.plan.profile import PROFILES, load_profile
from harness.plugins import registry
from harness.plugins.registry import find_plugin


def check(
    name: str,
    *,
    profile: str,
    overrides: Sequence[str],
    data: Sequence[str],
    images: int,
    items: int,
    generator: str,
    as_json: bool,
    keep: Path | None = None,
) -> bool:
    """Check one generator or suite, print the report, and return whether it conforms.

    Raises:
        UserError: no such generator or suite.
        DataMissing: what it needs is not given.
    """
    sized = load_profile(profile, overrides, data).profile
    found = find_generator(name)
    with tempfile.TemporaryDirectory(prefix="harness-check-") as scratch:
        root = keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        outcomes: list[Outcome]
        if found is not None:
            kind, outcomes = "generator", list(guard("plans", check_generator(found, sized, images, root)))
        else:
            find_plugin(name, PROFILES)
            suite = registry.suites().get(name)
            kind, outcomes = "suite", list(guard("plans", check_suite(suite, sized, images, items, generator, root)))
    print(render(name, kind, outcomes, as_json))
    return all(each.state != "failed" for each in outcomes)
