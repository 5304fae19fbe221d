"""From the names that a board prints to its rows: ``lbgen``, ``lbgen (epochs 40)``, ``checkpoint:a-1234``, each with ``@STORE``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.core.errors import UserError
from harness.core.names import did_you_mean
from leaderboard.rows import RowKey, row_words
from leaderboard.sources import Entry, gather, recorded
from leaderboard.tables import Table, build_tables

RECORDED = re.compile(r" \*?recorded\*?$")
_BRACKET = re.compile(r"^(.*\S) \((.*)\)$")
FORM = "give NAME[@STORE], NAME as the board prints it"


def system(text: str, places: Sequence[Path]) -> Table:
    """Return the table of one system, with one row for each backbone.

    A name is a generator's, with the words in brackets that tell its rows apart, as a board prints it, or
    ``GENERATOR:DIGITS`` of its images' key. The recorded rows stand in for what the places lack.

    Raises:
        UserError: an unknown name, or one that stands for several rows.
    """
    name, entries = _place(text, places)
    if name in _labels(entries):
        return _one_row_each(text, name, name, _labelled(entries, name), build_tables(entries, "all"))
    found = _parsed(name, _known(entries))
    if found is None:
        labels = sorted({*_known(entries), *_labels(entries)})
        raise UserError(
            f"no results of {name!r}", f"there are {', '.join(labels) or 'none'}", f"{did_you_mean(name, labels)}{FORM}"
        )
    generator, wanted = found
    chosen = [entry for entry in entries if entry.record.subject.generator == generator]
    return _one_row_each(text, name, generator, _selected(chosen, wanted), build_tables(chosen, "all"))


def _place(text: str, places: Sequence[Path]) -> tuple[str, list[Entry]]:
    """Return the name and the entries it may be among."""
    head, at, place = text.rpartition("@")
    if at and (Path(place).exists() or not any(path.exists() for path in places)):
        return head, gather([Path(place)])
    every = gather([path for path in places if path.exists()])
    if at and not _meant(text, every):
        return head, gather([Path(place)])  # which says that it is not there
    name = RECORDED.sub("", text)
    profiles = {entry.record.comparability.profile for entry in every}
    beside = [entry for entry in recorded() if entry.record.comparability.profile in profiles or not every]
    if name != text or not _meant(name, every):
        every = beside if name != text or _meant(name, beside) else every
    return name, every


def _known(entries: Sequence[Entry]) -> set[str]:
    return {entry.record.subject.generator for entry in entries}


def _labels(entries: Sequence[Entry]) -> set[str]:
    """Return the names of rows that are distinguished by words, as a board prints them."""
    return {key.label for table in build_tables(entries) for key in table.rows if key.variant}


def _labelled(entries: Sequence[Entry], label: str) -> list[Table]:
    """Return the tables of the rows of one name, whatever characters it holds."""
    tables = build_tables(entries, "all")
    for table in tables:
        table.rows = {key: cells for key, cells in table.rows.items() if key.label == label}
    return [table for table in tables if table.rows]


def _meant(name: str, entries: Sequence[Entry]) -> bool:
    return _parsed(name, _known(entries)) is not None or name in _labels(entries)


def _parsed(name: str, known: set[str]) -> tuple[str, tuple[str, ...]] | None:
    """Return generator and words in brackets, or None where no generator is meant; a whole name goes before its parts."""
    if name in known:
        return name, ()
    match = _BRACKET.match(name)
    if match and match[1] in known:
        return match[1], tuple(match[2].split(", "))
    generator, _, digits = name.rpartition(":")
    return (generator, (digits,)) if generator in known and digits else None


def _selected(entries: Sequence[Entry], wanted: Sequence[str]) -> list[Table]:
    """Return the tables of the rows of which all words are true."""
    tables = build_tables(entries, "all")
    for table in tables:
        known = row_words(entries, table.rows)
        for key in list(table.rows):
            if not all(any(word == one or _is_key_prefix(word, one) for one in known[key]) for word in wanted):
                del table.rows[key]
    return [table for table in tables if table.rows]


def _is_key_prefix(word: str, key: str) -> bool:
    """Return whether a word is the beginning of a content key."""
    return len(key) > 32 and len(word) >= 4 and key.startswith(word)


def _one_row_each(text: str, name: str, generator: str, tables: Sequence[Table], every: Sequence[Table]) -> Table:
    labels = sorted({key.label for table in every for key in table.rows})
    rows: list[RowKey] = [key for table in tables for key in table.rows]
    if len(tables) != 1 or len({key.backbone for key in rows}) < len(rows):
        what = f"{text!r} does not name one row" if rows else f"no results of {name!r}"
        profiles = f" in {len(tables)} profiles" if len(tables) > 1 else ""
        raise UserError(
            what, f"rows of {generator}{profiles}: {', '.join(labels)}", f"{did_you_mean(name, labels)}{FORM}"
        )
    return tables[0]
