"""Which profile measures a checkpoint: the one given, unless it contradicts the class list; else the one that is implied.

A profile sizes what is measured. A head of the thousand ImageNet classes measured under ``micro``, whose suites work on
64-pixel renders, gives numbers that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.backbones.baseline import PREFIX
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.plan.profile import PROFILES, load_profile

DEFAULT = "micro"
RESTRICTED = ("in100", "in1k")
"""Documented exception: a thousand-way head measured under in100 is restricted to the hundred classes, and says so."""


def choose_profile(asked: str, checkpoint: str, classes: str, data: Sequence[str]) -> tuple[str, str]:
    """Return the profile's name, and a note where it was chosen for the user.

    Args:
        asked: ``--profile``; empty where it was not given.
        checkpoint: ``--checkpoint``; empty for generators.
        classes: ``--classes``; may be empty for a trivial baseline.
        data: ``--data`` as it was given.

    Raises:
        UserError: the profile contradicts the class list, or a list of its own implies none.
    """
    if not checkpoint:
        return asked or DEFAULT, ""
    implied = _implied_by(classes) if classes else ""
    if asked:
        _refuse_contradiction(asked, implied, classes)
        return asked, ""
    if implied:
        return implied, _note(implied, f"--classes {classes}")
    if classes and data:
        raise UserError(
            "--profile is needed",
            f"no shipped profile has the classes of {classes}, so none is implied; {DEFAULT} works on 64-pixel images",
            "e.g. --profile in1k",
        )
    if not classes and checkpoint.startswith(PREFIX):
        return _of_baseline(checkpoint, data)
    return DEFAULT, _note(DEFAULT, "no data given")


def _of_baseline(checkpoint: str, data: Sequence[str]) -> tuple[str, str]:
    """Return the profile of a trivial baseline without a class list: that of the class it answers, or of the data given."""
    answer = checkpoint.removeprefix(PREFIX).partition(":")[2]
    if answer and answer in load_classes("imagenet1k").ids:
        return "in1k", _note("in1k", f"class {answer}")
    if data:
        return "in1k", _note("in1k", "--data")
    return DEFAULT, ""


def _note(name: str, reason: str) -> str:
    return f"profile {name} (implied by {reason}; --profile chooses another)"


def _implied_by(classes: str) -> str:
    """Return the shipped profile that has these classes, in whatever order; empty where none has."""
    ids = set(load_classes(classes).ids)
    return next((name for name in PROFILES if set(load_classes(load_profile(name).profile.classes).ids) == ids), "")


def _refuse_contradiction(asked: str, implied: str, classes: str) -> None:
    if asked not in PROFILES or not implied or implied == asked or (asked, implied) == RESTRICTED:
        return
    raise UserError(
        f"profile {asked} does not fit --classes {classes}",
        f"these are the classes of profile {implied}; {asked} measures other ones"
        + (", on 64-pixel images" if asked == DEFAULT else ""),
        f"write --profile {implied}, or leave --profile out",
    )
