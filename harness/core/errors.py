"""Errors a user can act on: what happened, why, and what to do."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """Report a problem the user can fix; printed in three parts without a traceback.

    Args:
        what: What happened, in one line.
        why: The cause, as far as it is known.
        fix: What to do next.
    """

    code: ClassVar[int] = 2

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"error: {self.what}\n  why: {self.why}\n  fix: {self.fix}"


class DataMissing(UserError):
    """Report a data set, checkpoint or tower that is not where it was looked for (exit code 4)."""

    code = 4


class CorruptArtifact(UserError):
    """Report a finished artifact whose bytes no longer match its manifest."""


class TrainingFailed(UserError):
    """Report a training that cannot go on, such as a loss that is not finite."""

    code = 1
