"""Checks of the models that a profile's generators name: one line each, with a fix. The generators know the forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.cli.datacheck import Finding
from harness.core.errors import UserError
from harness.core.settings import parse_settings
from harness.plan.datasets import generator_table
from harness.plan.profile import Profile, load_profile
from harness.plugins import registry
from harness.plugins.border import plugin_errors
from harness.plugins.generator import Generator


def model_findings(profile: str, data: Sequence[str], overrides: Sequence[str]) -> Iterator[Finding]:
    """Inspect every model that generators of a profile name; generators that name the same share a line."""
    try:
        resolved = load_profile(profile, overrides, data).profile
    except UserError:
        return  # the data sets' checks name it
    users: dict[tuple[str, str, str, str], list[str]] = {}
    for generator in registry.generators().available()[0]:
        for finding in _findings(generator, resolved):
            users.setdefault((finding.check, finding.status, finding.text, finding.fix), []).append(generator.card.id)
    for (check, status, text, fix), names in users.items():
        yield Finding(check, status, f"{text} [{', '.join(names)}]", fix)


def _findings(generator: Generator, profile: Profile) -> Iterator[Finding]:
    try:
        settings = parse_settings(generator.Settings, generator_table(profile, generator), generator.card.id)
    except UserError:
        return  # a matter of settings, not of files: the plan of that generator names it
    try:
        with plugin_errors(generator):
            reports = generator.inspect_models(settings)
    except UserError as error:
        yield Finding("model", "problem", f"{error.what}: {error.why}", error.fix)
        return
    for report in reports:
        text = "; ".join((report.location, report.layout, *report.notes))
        yield Finding(f"model {report.setting}", "ok", text)
