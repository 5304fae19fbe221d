"""What is installed against what the tests were run with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from harness.cli import doctor
from harness.core import versions

REQUIRES = ("torch>=2.11,!=2.13.0", "timm>=1.0.21", "mmdet==3.3.0; extra == 'perception'", "ruff>=9; extra == 'test'")
ROOT = Path(__file__).parents[2]


def untested_with(monkeypatch: pytest.MonkeyPatch, **installed: str) -> dict[str, versions.Untested]:
    """Return what is found untested where these packages are installed, by name."""

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(versions, "requires", lambda _: list(REQUIRES))
    monkeypatch.setattr(versions, "version", version)
    monkeypatch.setattr(versions, "newest_tested", lambda: {"torch": "2.15.0", "timm": "1.0.31"})
    return {each.name: each for each in versions.untested()}


def test_versions_between_the_lowest_and_the_newest_tested_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert untested_with(monkeypatch, torch="2.11.0", timm="1.0.31") == {}
    assert untested_with(monkeypatch, torch="2.15.0+cu132", timm="1.0.21", mmdet="3.3.0") == {}, "a build is no version"


def test_missing_excluded_and_newer_versions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found = untested_with(monkeypatch, torch="2.13.0", timm="1.1.0", mmdet="3.2.0")
    assert {name: each.refused for name, each in found.items()} == {"torch": True, "timm": False, "mmdet": True}
    assert found["timm"].wanted == "1.0.31"
    found = untested_with(monkeypatch, torch="2.10.0")
    assert {name: (each.installed, each.refused) for name, each in found.items()} == {
        "torch": ("2.10.0", True), "timm": ("not installed", True),
    }  # fmt: skip


def test_doctor_says_what_to_install_and_what_was_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    untested_with(monkeypatch, torch="2.10.0", timm="1.1.0")
    problem, warning = doctor._packages()
    assert problem.status == "problem" and "torch 2.10.0" in problem.text and ">=2.11" in problem.fix
    assert warning.status == "warning" and "timm 1.1.0 (tested up to 1.0.31)" in warning.text
    untested_with(monkeypatch, torch="2.11.0", timm="1.0.21")
    assert [finding.status for finding in doctor._packages()] == ["ok"]


def test_every_required_package_has_a_tested_version() -> None:
    """Else a newer one would go unnoticed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text[text.index("dependencies = [") : text.index("\nslurm = ")]
    names = {name.replace("_", "-") for name in re.findall(r'"([A-Za-z][\w-]*)\s*[><=!]', listed)}
    assert len(names) > 20 and names <= set(versions.newest_tested()), names - set(versions.newest_tested())
