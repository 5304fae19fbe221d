"""The code in the contributors' pages works."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.house import ROOT, drawing, shown

PAGES = ("CONTRIBUTING.md", "docs/plugins.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)


@pytest.fixture
def names() -> dict[str, Any]:
    """Return what the Python code of all pages defines: every block is executed."""
    found: dict[str, Any] = {}
    for page in PAGES:
        for number, code in enumerate(blocks(page, "python")):
            exec(compile(code, f"{page}, block {number}", "exec"), found)
    return found


def test_the_contract_shows_a_generator_that_works(names: dict[str, Any]) -> None:
    from harness.api import Request

    generator = names["Halftone"]()
    ctx = SimpleNamespace(settings=lambda model: model(levels=2))
    made = list(generator.synthesise(ctx, Request(0, "n0", "disc", 3, 5, 8, 0)))
    assert [sample.index for sample in made] == [3, 4] and made[0].image.shape == (8, 8, 3)
    assert made[0].image.max() == 1 and (made[0].image != made[1].image).any()


def test_the_contract_shows_a_suite_that_works(names: dict[str, Any], tmp_path: Path) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from harness.plugins.border import checked_rows, checked_score

    def tips_at_three_tenths(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean((1, 2, 3)), torch.full((len(x),), 0.3)], 1)

    names["classifier"] = lambda ctx: tips_at_three_tenths
    for index, light in enumerate((20, 120, 250)):  # only the middle picture's answer changes with the light
        Image.fromarray(np.full((8, 8, 3), light, np.uint8)).save(tmp_path / f"{index}.JPEG")
    suite = names["Brightness"]()
    rows = checked_rows(suite, suite.rows(SimpleNamespace(data=lambda name: tmp_path, device="cpu")))
    (metric,) = checked_score(suite, suite.score(rows, None, None, {})).metrics
    assert (metric.estimate.value, metric.estimate.n) == (2 / 3, 3)
    (units,) = suite.units(rows, None, None, {}, ["brightness"])
    assert units is not None


def test_the_contributors_page_shows_the_drawing_of_the_rooms() -> None:
    page = shown((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    arrows, wanted = ([re.sub(r" \d+", "", line) for line in text.splitlines()[:-1]] for text in (page, drawing()))
    assert arrows == wanted, "python -m tests.house --update puts it there; numbers of imports may differ"


def test_every_hook_of_the_contract_is_in_the_page() -> None:
    from harness.api import Generator, Suite

    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    internal = {"imports", "can_inspect", "takes_argument", "bind", "bound_data", "modules", "cost"}
    for contract in (Generator, Suite):
        hooks = {name for name in vars(contract) if not name.startswith("_")} - internal
        assert len(hooks) > 10
        assert not {name for name in hooks if name not in page}, contract
