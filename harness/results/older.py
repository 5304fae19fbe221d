"""Which stored scores are of older code, as their manifests say: without a model, a plan, or reading rows.

The manifests are not checked here: whoever shows what is in them has done so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.core.code import comparable
from harness.core.errors import UserError
from harness.store.artifacts import ASIDE, MANIFEST, SCORE_HASH


def older_scores(places: Sequence[Path]) -> list[str]:
    """Return one line per store with evaluations whose rows were scored by other code than the present.

    Baselines have no rows; nothing is said of plugins that are not installed, nor of evaluations of versions that did not
    keep the identity of this code.
    """
    lines = []
    for place in places:
        scored = [hashes for path in (place / "evaluate").glob(f"*/{MANIFEST}") if (hashes := _scored(path))]
        present = {name: _present(name) for name in {name for name, _ in scored}}
        old = sum(present[name] not in ("", made_by) for name, made_by in scored)
        if old:
            lines.append(
                f"{place}: {old} of {len(scored)} evaluations were scored by older code; "
                f"python -m harness rescore {place} scores their rows again"
            )
    return lines


def _scored(path: Path) -> tuple[str, str] | None:
    """Return suite and hash of the code that scored an evaluation, by its manifest; None if that is unknown."""
    if ASIDE in path.parent.name:
        return None
    try:
        manifest = json.loads(path.read_bytes())
        known = comparable(manifest["fingerprint"])
        return (str(manifest["spec"]["name"]), str(manifest.get(SCORE_HASH, ""))) if known else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _present(name: str) -> str:
    """Return the hash of the code that scores a suite now; empty for a suite that is not installed or broken."""
    from harness.plugins import registry
    from harness.plugins.code import score_code

    try:
        return score_code(registry.suites().get(name))
    except UserError:
        return ""
