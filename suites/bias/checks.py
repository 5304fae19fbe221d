"""Validity checks: a broken model can win any bias metric, so accuracy decides whether a score is ranked."""

from __future__ import annotations

from harness.api import Check, Estimate


def floor_check(name: str, estimate: Estimate, threshold: float, meaning: str) -> Check:
    """Check that an estimate reaches a floor; an undefined estimate fails."""
    passed = estimate.value is not None and estimate.value >= threshold
    return Check(name, passed, estimate.value, threshold, meaning)
