"""Executors by name: the entry-point group ``harness.executors``, in which the built-in ones stand beside those of plugins."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.core.errors import UserError
from harness.core.names import did_you_mean
from harness.core.settings import Settings, parse_settings
from harness.plan.profile import EXECUTORS, Profile
from harness.run.executor import Executor
from harness.run.progress import ProgressReporter
from harness.store.artifacts import Store


@dataclass(frozen=True)
class Launch:
    """An executor and its settings, ready to be started."""

    name: str
    kind: type[Executor]
    settings: Settings

    def choose_device(self, asked: str) -> tuple[str, int]:
        """Return device and number of slots for what ``--device`` asks for."""
        return self.kind.choose_device(asked, self.settings)

    def __call__(self, store: Store, slots: int, device: str, board: ProgressReporter) -> Executor:
        """Make the executor."""
        board.executor = self.name
        return self.kind(store, slots, device, board, self.settings)


def launch(name: str, profile: Profile) -> Launch:
    """Return an executor by name, with its settings from the profile's table of that name.

    Raises:
        UserError: no such executor, one that cannot be loaded, or a wrong setting.
    """
    kind = executor_class(name)
    return Launch(name, kind, parse_settings(kind.Settings, profile.executors.get(name, {}), f"table [{name}]"))


def executor_class(name: str) -> type[Executor]:
    """Load an executor by name.

    Raises:
        UserError: no such executor, or one that cannot be loaded.
    """
    points = {point.name: point for point in sorted(entry_points(group=EXECUTORS), key=_order, reverse=True)}
    if name not in points:
        known = ", ".join(sorted(points)) or "none; is the project installed? (pip install -e .)"
        raise UserError(
            f"unknown executor {name!r}",
            f"registered: {known}",
            f"{did_you_mean(name, tuple(points))}correct --executor",
        )
    point = points[name]
    try:
        found: Any = point.load()
    except Exception as error:  # a plugin may fail in any way; the reason is shown, never swallowed
        raise _broken(point, f"{type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise _broken(point, "it is no subclass of harness.api.Executor")
    return found


def _order(point: EntryPoint) -> tuple[bool, str, str]:
    """Sort built-in ones first: nobody else can take their names."""
    from harness.plugins.registry import DISTRIBUTION

    return point.dist is None or point.dist.name != DISTRIBUTION, point.name, point.value


def _broken(point: EntryPoint, why: str) -> UserError:
    origin = point.dist.name if point.dist else "no distribution"
    return UserError(
        f"executor {point.name!r} is broken", f"{why} ({point.value}, {origin})", "fix or uninstall the plugin"
    )
