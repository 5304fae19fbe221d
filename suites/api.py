"""What a suite's author needs, in one import."""

from harness.core.settings import NoSettings, Settings
from harness.plugins.common import DataReport, DerivedInput
from harness.plugins.context import Context
from harness.plugins.inputs import classifier, open_images
from harness.plugins.suite import Item, NotPlanned, Score, Suite, SuiteCard
from harness.stats.difference import Units
from harness.stats.estimate import Estimate
from harness.store.records import Check, Metric

__all__ = [
    "Check",
    "Context",
    "DataReport",
    "DerivedInput",
    "Estimate",
    "Item",
    "Metric",
    "NoSettings",
    "NotPlanned",
    "Score",
    "Settings",
    "Suite",
    "SuiteCard",
    "Units",
    "classifier",
    "open_images",
]
