"""What ``run`` and ``calibrate`` print about a run besides its numbers."""

from __future__ import annotations

import sys

from harness.core.names import plain
from harness.plan.model import Plan
from harness.run.progress import RunSummary
from harness.run.session import RunPlan


def print_plan_notes(plan: Plan) -> None:
    """Print notes and warnings of a plan, before hours are spent on it."""
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def print_summary(found: RunPlan, summary: RunSummary | None, quiet: bool) -> None:
    """Print what was not run and why, the failures with their logs, and the cost of the run.

    Args:
        found: The plan.
        summary: The outcome; None if no cell was left to do.
        quiet: Leave out the cost.
    """
    out = sys.stderr
    for entry in found.plan.not_run:
        print(f"not run: {entry.what}: {entry.reason}", file=out)
    if not found.plan.cells and any(entry.failed for entry in found.plan.not_run):
        print("nothing was run: plugins failed, see above\n"
              "  fix: correct the plugins, or report them to their authors", file=out)  # fmt: skip
        return
    if not found.plan.cells:
        fix = "do what the lines above say (data sets: --data NAME=PATH), or use the embedded ones (--profile micro)"
        print(f"nothing was run: every evaluation lacks its data or a model, see above\n  fix: {fix}", file=out)
        return
    if summary is None:
        print(f"nothing to do: all {len(found.plan.cells)} cells are done", file=out)
        return
    if summary.failures:
        print(f"\n{len(summary.failures)} cells did not finish:", file=out)
    for failure in summary.failures:
        words = (
            f"  {failure.cell.shown_kind} {failure.cell.label}\n    what: {failure.what}\n     why: {failure.why}\n"
            f"     fix: {failure.fix}\n     log: {failure.log}"
        )
        print(plain(words), file=out)
    if summary.unsaved is not None:
        print(f"{summary.unsaved}\n  note: the cells that are done are safe; status does not show them", file=out)
    if not quiet:
        costs = ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in summary.cpu_seconds.items())
        print(f"{summary.done} cells in {summary.wall_seconds:.0f} s; CPU-seconds: {costs}", file=out)
