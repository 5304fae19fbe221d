"""What a selection needs from the network: the models that the settings of its generators and suites name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from harness.core.errors import DataMissing
from harness.core.hub import Found, HubModel, cache_of, look
from harness.core.offline import FIX, WHY
from harness.core.settings import Settings
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plugins.border import plugin_errors
from harness.plugins.generator import Generator
from harness.plugins.suite import Suite

Users = Mapping[HubModel, tuple[str, ...]]
"""Model to the generators and suites that need it."""


def needed_models(selection: Selection) -> Users:
    """Return the models of the hub that a selection needs, whatever of its data is here.

    Raises:
        UserError: an unknown name or setting, or a model that is not on the hub.
        PluginFailed: the code of a generator or a suite failed.
    """
    found: dict[HubModel, dict[str, None]] = {}
    for plugin, settings in plugins(selection):
        with plugin_errors(plugin):
            for model in plugin.hub_models(settings):
                found.setdefault(model, {})[plugin.card.id] = None
    return {model: tuple(users) for model, users in found.items()}


def plugins(selection: Selection) -> Iterator[tuple[Generator | Suite, Settings]]:
    """Yield the generators and suites of a selection with their settings."""
    yield from Planner(selection).plugins()


def absent_models(selection: Selection, plan: Plan, wanted: Collection[str]) -> list[Found]:
    """Return the models that cells of a plan will read and that are not whole in the hub's cache; the hub is not asked."""
    read = {str(value) for key in wanted for value in dict(plan.cells[key].params.get("settings", {})).values()}
    cache = cache_of()
    models = (model for model in needed_models(selection) if model.location in read)
    return [found for model in models if (found := look(model, cache, ask=False)).state != "there"]


def refuse_absent(selection: Selection, plan: Plan, wanted: Collection[str]) -> None:
    """Check, for a run without a network, that every model which its cells will read is here.

    Raises:
        DataMissing: one is not.
    """
    absent = absent_models(selection, plan, wanted)
    if absent:
        named = ", ".join(dict.fromkeys(f"{each.model.location} ({_lacking(each)})" for each in absent))
        raise DataMissing(f"models of this run are not in {cache_of()}: {named}", WHY, FIX)


def _lacking(found: Found) -> str:
    return f"{len(found.present)} of {len(found.files)} files" if found.files else "never fetched"
