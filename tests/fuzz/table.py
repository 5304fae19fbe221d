"""All readers of data from outside, and of what runs leave behind."""

from __future__ import annotations

from tests.fuzz import data, models, stores
from tests.fuzz.bench import Reader

READERS: dict[str, Reader] = {reader.name: reader for part in (data, models, stores) for reader in part.readers()}
