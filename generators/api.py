"""What a generator's author needs, in one import."""

from harness.core.settings import NoSettings, Settings
from harness.images.request import Request, Sample
from harness.plugins.common import DerivedInput, Workload
from harness.plugins.context import Context
from harness.plugins.generator import Generator, GeneratorCard
from harness.store.cells import Resources

__all__ = [
    "Context",
    "DerivedInput",
    "Generator",
    "GeneratorCard",
    "NoSettings",
    "Request",
    "Resources",
    "Sample",
    "Settings",
    "Workload",
]
