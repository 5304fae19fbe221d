"""``list`` and ``describe``: what is registered, and the card of each entry."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from harness.core.classes import SHIPPED
from harness.core.errors import UserError
from harness.core.names import did_you_mean
from harness.plan.profile import PROFILES, load_profile
from harness.plugins import registry
from harness.plugins.generator import Generator
from harness.plugins.registry import find_plugin
from harness.plugins.suite import Suite

KINDS = ("generators", "suites", "profiles", "classes")


def show_list(what: str, as_json: bool) -> None:
    """Print what is registered; broken plugins with the reason.

    Raises:
        UserError: ``what`` is none of ``KINDS``.
    """
    if what and what not in KINDS:
        raise UserError(
            f"cannot list {what!r}",
            f"choices: {', '.join(KINDS)}",
            f"{did_you_mean(what, KINDS)}leave it out to list everything",
        )
    tables = {kind: _table(kind) for kind in KINDS if what in ("", kind)}
    if as_json:
        print(json.dumps(tables, indent=1, sort_keys=True))
        return
    for kind, rows in tables.items():
        print(f"{kind}:")
        for row in rows:
            _print_row(row)


def _table(kind: str) -> list[dict[str, str]]:
    if kind == "profiles":
        return [{"id": name, "summary": load_profile(name).profile.summary} for name in PROFILES]
    if kind == "classes":
        return [
            {"id": name, "summary": f"ordered class list {location.removeprefix('package:')}"}
            for name, location in SHIPPED.items()
        ]
    found = registry.generators() if kind == "generators" else registry.suites()
    good, bad = found.available()
    rows = [{"id": plugin.card.id, "summary": plugin.card.summary + _groups(plugin.card.groups)} for plugin in good]
    rows += [{"id": broken.id, "summary": f"BROKEN: {broken.reason} ({broken.origin})"} for broken in bad]
    return sorted(rows, key=lambda row: row["id"])


def _groups(groups: tuple[str, ...]) -> str:
    return f" [{', '.join(groups)}]" if groups else ""


def show_card(name: str, as_json: bool) -> None:
    """Print a generator's or suite's card and settings, a group's members, a metric's formula, or a profile's values.

    Raises:
        UserError: an unknown name.
    """
    if name in PROFILES:
        _show_profile(name, as_json)
        return
    if members := _members(name):
        _show_group(name, members, as_json)
        return
    if name not in (*registry.generators().ids(), *registry.suites().ids()) and (measuring := _measuring(name)):
        _show_metric(name, measuring, as_json)
        return
    plugin = find_plugin(name, (*PROFILES, *(each for suite in _suites() for each in suite.card.metrics)))
    facts: dict[str, Any] = asdict(plugin.card)
    if isinstance(plugin, Suite):
        facts["protocol"] = plugin.protocol(plugin.Settings())
    facts["settings"] = {
        key: {"default": field.get_default(call_default_factory=True), "meaning": field.description or ""}
        for key, field in plugin.Settings.model_fields.items()
    }
    if as_json:
        print(json.dumps(facts, indent=1, sort_keys=True, default=str))
        return
    print(f"{facts.pop('id')} (version {facts.pop('version')})\n")
    print(textwrap.fill(facts.pop("summary"), 100))
    if isinstance(plugin, Generator):
        facts["information"] = facts["information"] or "unknown"
    settings = facts.pop("settings")
    for key, value in facts.items():
        if value not in ("", (), {}, None):
            _print_fact(key.replace("_", " "), value)
    if settings:
        print("\nsettings (default):")
        for key, entry in settings.items():
            text = f"{key} = {entry['default']!r}" + (f"  {entry['meaning']}" if entry["meaning"] else "")
            print(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      "))


def _members(name: str) -> list[Generator | Suite]:
    """Generators and suites of a group; empty if no group has that name."""
    generators, suites = registry.generators(), registry.suites()
    found: list[Generator | Suite] = [generators.get(each) for each in generators.groups().get(name, ())]
    return [*found, *(suites.get(each) for each in suites.groups().get(name, ()))]


def _suites() -> list[Suite]:
    return registry.suites().available()[0]


def _measuring(name: str) -> list[tuple[Suite, str]]:
    """Suites that record a metric, each with the formula of the metric; what follows an ``@`` is a variant of the plain name."""
    for exact in (name, name.partition("@")[0]):
        for same in (str.__eq__, fnmatchcase):
            found = [
                (suite, formula)
                for suite in _suites()
                for declared, formula in suite.card.metrics.items()
                if same(exact, declared)
            ]
            if found:
                return found
    return []


def _show_metric(name: str, measuring: list[tuple[Suite, str]], as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"suite": suite.card.id, "version": suite.card.version, "formula": formula, "summary": suite.card.summary,
         "suite_formula": suite.card.formula, "companions": [each for each in suite.card.metrics if each != name]}
        for suite, formula in measuring
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"metric": name, "suites": rows}, indent=1, sort_keys=True))
        return
    for row in rows:
        print(f"{name} (a metric of suite {row['suite']}, version {row['version']})")
        _print_fact("formula", row["formula"])
        _print_fact("suite", f"{row['summary']} {row['suite_formula']}")
        _print_fact("recorded with it", tuple(row["companions"]))
        print(f"\nmore: python -m harness describe {row['suite']}")


def _show_group(name: str, members: list[Generator | Suite], as_json: bool) -> None:
    rows = [{"id": each.card.id, "summary": each.card.summary} for each in members]
    if as_json:
        print(json.dumps({"group": name, "members": rows}, indent=1, sort_keys=True))
        return
    print(f"{name} (a group)\n")
    for row in rows:
        _print_row(row)


def _print_row(row: Mapping[str, str]) -> None:
    print(textwrap.fill(row["summary"], 100, initial_indent=f"  {row['id']:<18} ", subsequent_indent=" " * 21))


def _show_profile(name: str, as_json: bool) -> None:
    profile = load_profile(name).profile.model_dump(mode="json", exclude_unset=True)
    if as_json:
        print(json.dumps(profile, indent=1, sort_keys=True))
        return
    print(f"{profile.pop('name')} (profile)\n\n{textwrap.fill(profile.pop('summary'), 100)}\n")
    for section, values in profile.items():
        if not isinstance(values, Mapping):
            print(f"{section} = {values!r}")
            continue
        print(f"\n[{section}]")
        for key, value in values.items():
            text = ", ".join(f"{k} = {v!r}" for k, v in value.items()) if isinstance(value, Mapping) else repr(value)
            print(textwrap.fill(f"{key}: {text}", 100, initial_indent="  ", subsequent_indent="      "))


def _print_fact(name: str, value: object) -> None:
    if isinstance(value, tuple) and any(len(str(part)) > 30 for part in value):
        print(f"\n{name}:")
        for part in value:
            print(textwrap.fill(str(part), 100, initial_indent="  - ", subsequent_indent="    "))
        return
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if isinstance(value, Mapping):
        text = "\n".join(textwrap.fill(f"{k}: {v}", 98, subsequent_indent="    ") for k, v in value.items())
    lines = text.splitlines() if "\n" in text else textwrap.wrap(text, 78)
    print(f"\n{name}:" if len(lines) > 1 else f"{name}: {text}")
    for line in lines if len(lines) > 1 else ():
        print(f"  {line}")
