"""What a suite's author needs, in one import."""

from harness.plugins.contracts import DataReport, Item, Need, NoSettings, NotPlanned, Score, Settings, Suite, SuiteCard
from harness.run.job import Context
from harness.run.tasks import classifier, open_images
from harness.stats.difference import Units
from harness.stats.estimate import Estimate
from harness.store.records import Check, Metric

__all__ = [
    "Check",
    "Context",
    "DataReport",
    "Estimate",
    "Item",
    "Metric",
    "Need",
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
