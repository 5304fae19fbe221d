"""What a generator's author needs, in one import."""

from harness.plugins.contracts import Amount, Generator, GeneratorCard, Need, NoSettings, Request, Sample, Settings
from harness.run.job import Context
from harness.store.cells import Resources

__all__ = [
    "Amount",
    "Context",
    "Generator",
    "GeneratorCard",
    "Need",
    "NoSettings",
    "Request",
    "Resources",
    "Sample",
    "Settings",
]
