"""What a generator's author needs, in one import."""

from harness.cells import Resources
from harness.contracts import Amount, Generator, GeneratorCard, Need, NoSettings, Request, Sample, Settings
from harness.work import Context

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
