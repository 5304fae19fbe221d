"""Settings of plugins: strict pydantic models, and what is said of a wrong key or value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.errors import UserError
from harness.core.names import did_you_mean


class Settings(BaseModel):
    """Base of all settings: strict keys, frozen, plain JSON values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class NoSettings(Settings):
    """No settings at all."""


def parse_settings(model: type[Settings], values: Mapping[str, Any], owner: str) -> Settings:
    """Validate the settings of one plugin; a wrong key or value is a user error naming near keys."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise settings_error(owner, error, tuple(model.model_fields)) from error


def settings_error(owner: str, error: ValidationError, known: tuple[str, ...]) -> UserError:
    """Return the user error for a settings table that is not valid."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = () if len(first["loc"]) > 1 else known  # the names are those of the outermost table
        hint = did_you_mean(str(first["loc"][-1]), known)
        return UserError(
            f"{owner} has no setting {key!r}",
            f"known settings: {', '.join(known)}" if known else "no setting has that name",
            f"{hint}remove or correct it",
        )
    return UserError(
        f"setting {key!r} of {owner} is not valid", f"{first['msg']} (got {first.get('input')!r})", "correct the value"
    )
