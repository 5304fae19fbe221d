"""Where the project is installed, and what stands in its way."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("harness", "generators", "suites", "leaderboard")


def shadowing() -> list[str]:
    """Return packages that a folder of the working directory shadows."""
    home = Path(__file__).parents[2].resolve()
    here = Path.cwd().resolve()
    return [name for name in PACKAGES if here != home and (here / name).is_dir() and any((here / name).glob("*.py"))]
