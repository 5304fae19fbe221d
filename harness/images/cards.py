"""What the card of a hub data set (``README.md`` beside the files) states of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.images.tables import stated_names

_CARD = "README.md"


def card_names(base: Path, root: Path) -> tuple[str, ...]:
    """Return the names of labels 0, 1, ... by the card in a data set's folder or in its root; empty where it states none.

    Raises:
        UserError: configurations of the data set give them in several orders.
    """
    found = {names for place in (base, root) for names in _stated(place / _CARD)}
    if len(found) > 1:
        raise UserError(
            f"{root / _CARD} gives labels several orders of names",
            "it describes several configurations of the data set",
            "give the folder of one of them, or a file of lines 'label wnid' as class_map",
        )
    return found.pop() if found else ()


def _stated(path: Path) -> set[tuple[str, ...]]:
    import yaml

    head = path.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0] if path.is_file() else ""
    if not head.startswith("---"):
        return set()
    try:
        info = (yaml.safe_load(head) or {}).get("dataset_info") or {}
    except (yaml.YAMLError, AttributeError):
        return set()
    tables = info if isinstance(info, list) else [info]
    return {names for table in tables if (names := stated_names(_columns(table)))}


def _columns(table: Any) -> dict[str, Any]:
    """Return the columns of a configuration as the schema's metadata describe them."""
    columns = {}
    for feature in table.get("features") or () if isinstance(table, Mapping) else ():
        kind = feature.get("dtype") if isinstance(feature, Mapping) else None
        label = kind.get("class_label") if isinstance(kind, Mapping) else None
        names = label.get("names") if isinstance(label, Mapping) else None
        if isinstance(names, Mapping) and all(str(key).isdigit() for key in names):
            names = [names[key] for key in sorted(names, key=int)]
        if isinstance(names, list):
            columns[str(feature.get("name"))] = {"names": names}
    return columns
