"""Provenance: what made an artifact, gathered by one function."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "peft",
    "transformers",
    "open_clip_torch",
    "scikit-learn",
    "numpy",
    "mmcv-lite",
    "mmdet",
    "mmsegmentation",
)


@cache
def code_version() -> tuple[tuple[str, str], ...]:
    """Return version, commit and whether the tree was dirty, as far as they can be known."""
    root = Path(__file__).parents[2]
    facts = {"harness": __version__, "commit": "", "dirty": ""}
    if (root / ".git").exists():
        facts["commit"] = _git(root, "rev-parse", "HEAD")
        facts["dirty"] = "yes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "no"
    return tuple(facts.items())


def version_line() -> str:
    """Versions of the harness and of torch, as one line; torch is not imported."""
    facts = dict(code_version())
    commit = facts["commit"][:12] + (", modified" if facts["dirty"] == "yes" else "")
    return f"harness {facts['harness']}{f' ({commit})' if commit else ''}, torch {_version('torch')}"


@cache
def package_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the packages that numbers depend on."""
    return tuple((name, _version(name)) for name in PACKAGES)


def provenance(device: str, threads: int) -> dict[str, object]:
    """Return code, packages, machine and device; kept beside every artifact, no part of its identity."""
    return {
        "code": dict(code_version()),
        "packages": dict(package_versions()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": threads,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
