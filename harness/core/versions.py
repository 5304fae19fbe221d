"""Are the installed packages among the versions that the tests were run with?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files

DISTRIBUTION = "databias-harness"
OPTIONAL = ("perception", "slurm")
"""Groups of optional packages that a run may use."""


@dataclass(frozen=True)
class Untested:
    """A package outside of what was tested."""

    name: str
    installed: str
    """Version, or "not installed"."""
    wanted: str
    """What the project asks for, or the newest version that was tested."""
    refused: bool
    """Whether the project's requirements exclude it; else it is newer than what was tested."""


def untested() -> Iterator[Untested]:
    """Yield the required packages that are missing, excluded, or newer than those in ``constraints.txt``.

    Packages of the optional groups are looked at where they are installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    newest = newest_tested()
    for requirement in map(Requirement, requires(DISTRIBUTION) or ()):
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": group}) for group in OPTIONAL):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            if not marker:
                yield Untested(requirement.name, "not installed", str(requirement.specifier), True)
            continue
        tested = newest.get(canonicalize_name(requirement.name))
        if not requirement.specifier.contains(installed, prereleases=True):
            yield Untested(requirement.name, installed, str(requirement.specifier), True)
        elif tested and Version(Version(installed).public) > Version(tested):
            yield Untested(requirement.name, installed, tested, False)


def newest_tested() -> dict[str, str]:
    """Return the newest version of each package that the tests were run with, by canonical name."""
    lines = (files("harness") / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): pin.strip() for name, _, pin in pins}
