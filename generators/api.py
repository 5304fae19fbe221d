"""What a generator's author needs, in one import."""

from harness.contracts import Generator, GeneratorCard, NoSettings, Request, Sample, Settings
from harness.work import Context

__all__ = ["Context", "Generator", "GeneratorCard", "NoSettings", "Request", "Sample", "Settings"]
