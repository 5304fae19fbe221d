"""What a suite's author needs, in one import."""

from harness.contracts import DataReport, Item, Need, NoSettings, NotPlanned, Score, Settings, Suite, SuiteCard
from harness.inference import Units
from harness.records import Check, Metric
from harness.stats import Estimate
from harness.tasks import classifier, open_images
from harness.work import Context

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
