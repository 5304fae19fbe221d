"""What a generator's author needs, in one import."""

from harness.core.settings import NoSettings, Settings
from harness.images.request import Request, Sample
from harness.plugins.common import Amount, Need
from harness.plugins.context import Context
from harness.plugins.generator import Generator, GeneratorCard
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
