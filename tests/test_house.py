"""Rules of the house that a machine can check."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def test_suites_and_readers_do_not_know_the_embedded_profile() -> None:
    files = [*(ROOT / "suites").rglob("*.py"), *(ROOT / "harness" / "images").rglob("*.py")]
    assert len(files) > 40
    knowing = [
        str(path.relative_to(ROOT)) for path in files if re.search(r"\bmicro\b|microworld", path.read_text("utf-8"))
    ]
    assert not knowing, "what differs between small and public data is a dataset card's matter"


def test_the_suite_of_the_contributors_page_works(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    block = next(code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "class Brightness" in code)
    names: dict[str, Any] = {}
    exec(block, names)
    names["classifier"] = lambda ctx: lambda x: torch.stack([x.mean((1, 2, 3)), torch.full((len(x),), 0.3)], 1)
    for index, light in enumerate((20, 120, 250)):  # at 0.3 the answer tips: only the middle picture changes it
        Image.fromarray(np.full((8, 8, 3), light, np.uint8)).save(tmp_path / f"{index}.JPEG")
    suite = names["Brightness"]()
    rows = suite.rows(SimpleNamespace(data=lambda name: tmp_path, device="cpu"))
    (metric,) = suite.score(rows, None, None, {}).metrics
    assert (metric.estimate.value, metric.estimate.n) == (2 / 3, 3)
