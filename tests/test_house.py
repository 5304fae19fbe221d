"""Rules of the house that a machine can check."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_suites_and_readers_do_not_know_the_embedded_profile() -> None:
    files = [*(ROOT / "suites").rglob("*.py"), *(ROOT / "harness" / "images").rglob("*.py")]
    assert len(files) > 40
    knowing = [
        str(path.relative_to(ROOT)) for path in files if re.search(r"\bmicro\b|microworld", path.read_text("utf-8"))
    ]
    assert not knowing, "what differs between small and public data is a dataset card's matter"
