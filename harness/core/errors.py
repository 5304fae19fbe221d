"""Errors a user can act on: what happened, why, and what to do."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

_NAMED = 200
"""Bad files that one error names."""
_WHY = 300
"""Characters of another library's message that are shown."""


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
    """Report a data set, checkpoint or model that is not where it was looked for (exit code 4)."""

    code = 4


class CorruptArtifact(UserError):
    """Report a finished artifact whose bytes no longer match its manifest."""


class DiskFailed(UserError):
    """Report a disk that is full or failing. What was finished before is safe."""


class ReadOnly(DiskFailed):
    """Report a place where this user may not write."""


class TrainingFailed(UserError):
    """Report a training that cannot go on, such as a loss that is not finite."""

    code = 1


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message; the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def refuse_malformed(source: object, fix: str) -> Iterator[None]:
    """Turn what the values of a file from outside make its reader stumble over into an error that names the file.

    For blocks that do nothing but read and check such values.

    Raises:
        UserError: a value is missing, or of another type, size or form than the reader expects.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, csv.Error) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:_WHY]
        raise UserError(f"{source} is damaged or has an unexpected form", why, fix) from error


def refuse_files(bad: Sequence[UserError]) -> None:
    """Raise what was wrong with files: the error of the one, or one that names them all.

    No image is left out or replaced: the number of images is part of a metric's definition, and what is missing would
    have to be the same for every backbone.

    Raises:
        DataMissing: all of them are missing.
        UserError: otherwise, if there are any.
    """
    if len(bad) == 1:
        raise bad[0]
    if bad:
        kind = DataMissing if all(isinstance(error, DataMissing) for error in bad) else UserError
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise kind(
            f"{len(bad)} files cannot be used",
            "; ".join(error.what for error in bad[:_NAMED]) + more,
            "fetch these files of the data set again, none can be left out; then the same command measures this suite",
        )
