<<<<<<< Updated upstream
"""The code in the contributors' pages works."""
=======
"""What the pages claim: commands that exist, links that lead somewhere, a README that is read to its end."""
>>>>>>> Stashed changes

from __future__ import annotations

import re
<<<<<<< Updated upstream
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
=======
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PREFIX = re.compile(r"(?:\.venv/bin/)?python -m harness ")


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of every harness command in the code of a page: lines of blocks, and whole inline code."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    lines += re.findall(r"`(python -m harness [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    found = [match for line in lines if (match := PREFIX.search(line))]
    return [shlex.split(re.split(" > |  +", match.string[match.end() :])[0], comments=True) for match in found]


def refusal(arguments: list[str]) -> str:
    """Parse a command line as the program does, run nothing, and return why it is refused; empty where it is not."""
    command: Any = typer.main.get_command(app)
    rest = [word for word in arguments if word != "..."]
    try:
        while hasattr(command, "commands"):
            name, inner, rest = command.resolve_command(command.make_context("harness", [], resilient_parsing=True), rest)
            if inner is None:
                return f"no command {rest}"
            command = inner
        command.make_context(name, rest)
    except Exception as error:  # typer's own errors; which class they are differs between its versions
        if getattr(error, "exit_code", None) != 2:
            raise
        return f"{' '.join(arguments)}: {error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_understood(page: Path) -> None:
    assert [reason for arguments in commands(page) if (reason := refusal(arguments))] == []


def test_the_check_reads_the_commands_and_refuses_a_wrong_one() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 25
    assert ["run", "--generator", "lbgen", "--suite", "all"] in commands(ROOT / "README.md")
    assert all(map(refusal, (["runn"], ["run", "--generators", "lbgen"], ["run", "--seeds", "many"])))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES if f"{page.name})" not in index and page.name != "README.md"] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1100
>>>>>>> Stashed changes
