"""``--classifier``: the classifier that a function returns, as something that can be planned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.backbones.loaded import CodeSource
from harness.backbones.preprocessing import OPTIONS
from harness.core.errors import UserError
from harness.plan.model import ExternalCheckpoint
from harness.plan.profile import Profile, load_profile, parse_override
from harness.plan.profile_choice import choose_profile
from harness.results.subject import Wishes, prepared

TABLE = "classifier."
"""What settings of the function begin with."""


@contextmanager
def planned(
    function: str,
    store: Path,
    profile: str,
    classes: str,
    data: Sequence[str],
    overrides: Sequence[str],
    flags: Mapping[str, Any],
) -> Iterator[tuple[Profile, ExternalCheckpoint]]:
    """Yield the profile and the classifier; inside the block the weights of a network of timm lie in a file.

    Args:
        function: ``module:function``.
        store: Folder of the store.
        profile: ``--profile``; may be empty.
        classes: ``--classes``; empty where the function states its own.
        data: ``--data``.
        overrides: ``--set``, of the function and of the profile.
        flags: What the command line says of the inputs, by name of ``Preprocessing``.

    Raises:
        UserError: the function cannot be called, or says too little of its classifier.
    """
    settings = dict(parse_override(text.removeprefix(TABLE)) for text in overrides if text.startswith(TABLE))
    source = CodeSource(function, settings, classes, os.getcwd())
    spec = source.make()
    listed = classes or spec.classes
    if not listed:
        raise UserError(
            "--classifier needs --classes",
            f"{function} does not say what the outputs mean",
            "give --classes LIST, or return harness.api.ClassifierSpec(model=..., classes=...)",
        )
    name, note = choose_profile(profile, "a classifier", listed, data)
    sized = load_profile(name, [text for text in overrides if not text.startswith(TABLE)], data).profile
    wishes = Wishes(listed, flags, source=source, options=OPTIONS)
    with prepared(spec, sized, store, wishes) as found:
        yield sized, replace(found, notes=(*filter(None, [note]), *found.notes))
