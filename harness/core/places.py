"""Sentences for records, which travel: they name files, and not where these lie on one machine."""

from __future__ import annotations

import re
from collections.abc import Mapping

_FOLDERS = re.compile(r"(?<![\w/:.~])(?:/|~/|[A-Za-z]:\\)(?:[^/\\\s'\",;]+[/\\])+")
"""The folders of an absolute path; addresses of the web and fractions are none."""


def without_places(text: str, names: Mapping[str, str]) -> str:
    """Return a text whose absolute paths have lost their folders.

    Args:
        text: One or more sentences.
        names: Folders, and what to call each; paths below one of them stay relative to it.
    """
    for folder, name in sorted(names.items(), key=lambda item: -len(item[0])):
        plain = folder.rstrip("/")
        text = text.replace(f"{plain}/", "").replace(plain, name) if plain else text
    return _FOLDERS.sub("", text)
