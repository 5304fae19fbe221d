"""What the pages claim: commands that exist, links that lead somewhere, a README that is read to its end."""

from __future__ import annotations

import re
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
            name, inner, rest = command.resolve_command(
                command.make_context("harness", [], resilient_parsing=True), rest
            )
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
