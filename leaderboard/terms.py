"""Which values may share a column: profile, suite version, data, class list and protocol, of every member of a mean.

A column's terms are part of what it is, so whether two values share a column depends on nothing but the two. Where a metric was
measured under several terms there are several columns; one keeps the plain name, the others name their shortest difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.core.identity import content_key
from harness.store.records import Record

Data = tuple[tuple[str, str], ...]
"""Data set names with their hashes."""
MOST_WORDS = 3
DIGITS = (4, 8, 16, 64)
LONGEST = 40
"""Of a protocol's words in the name of a column; the notes of a table say them whole."""


@dataclass(frozen=True, order=True)
class Terms:
    """What must be equal for two values to stand in one column."""

    profile: str
    version: int
    classes: str
    protocol: str
    members: tuple[tuple[str, Data], ...]
    """Metrics behind the value with the data each was measured on; one but for means over a group."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the metrics behind the value."""
        return tuple(name for name, _ in self.members)

    def differing(self, other: Terms) -> list[str]:
        """Return in what two terms differ, in words."""
        pairs = {
            "profile": (self.profile, other.profile),
            "suite version": (self.version, other.version),
            "data": _data(self, other),
            "class list": (self.classes, other.classes),
            "protocol": (self.protocol, other.protocol),
            "members": (self.names, other.names),
        }
        return [name for name, (here, there) in pairs.items() if here != there]


def _data(first: Terms, second: Terms) -> tuple[object, object]:
    """Return the data of the members that both have."""
    common = set(first.names) & set(second.names)
    here, there = ([member for member in terms.members if member[0] in common] for terms in (first, second))
    return here, there


def base_terms(record: Record) -> Terms:
    """Return a record's terms without members, which depend on the metric."""
    c = record.comparability
    return Terms(c.profile, c.suite_version, c.classes, c.protocol, ())


def data_of(record: Record) -> Data:
    """Return the data a record was measured on."""
    return tuple(sorted(record.comparability.data.items()))


def differ(names: Sequence[str]) -> str:
    """Return the names of what differs as a sentence."""
    return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"


def told_apart(items: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    """Return for each item the fewest of its words that no other item shares.

    Args:
        items: For each item, aspects with their words, the aspects in the order in which they are preferred. An item that
            lacks an aspect differs in it from one that has it, but has no word for it.

    Returns:
        Words in the order of their aspects; all words that differ from some other item's where even these are not unique.
    """
    return [fewest_words(item, [other for j, other in enumerate(items) if j != i]) for i, item in enumerate(items)]


def fewest_words(item: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the fewest words of an item that none of the others shares, see ``told_apart``."""
    varying = [name for name in item if any(other.get(name) != item[name] for other in others)]
    for size in range(min(MOST_WORDS, len(varying)) + 1):
        for names in combinations(varying, size):
            if not _shared(item, names, others):
                return tuple(item[name] for name in names)
    return tuple(item[name] for name in varying)


def tells_apart(words: Sequence[str], item: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> bool:
    """Return whether some words of an item are shared by none of the others."""
    return not _shared(item, [name for name in item if item[name] in words], others)


def _shared(item: Mapping[str, str], names: Sequence[str], others: Sequence[Mapping[str, str]]) -> bool:
    return any(all(other.get(name) == item[name] for name in names) for other in others)


def column_names(metric: str, found: Mapping[Terms, bool]) -> dict[Terms, tuple[int, str]]:
    """Return rank and name of the columns of one metric: the plain name for one, the shortest difference for the others.

    The plain name goes to the mean over most members, then to the newest version of the suite, to what ships with the project, to
    the shortest protocol: never to whatever most rows happen to have.

    Args:
        metric: The plain name.
        found: Terms, and whether recorded rows have them.
    """
    order = sorted(found, key=lambda t: (-len(t.members), -t.version, not found[t], len(t.protocol), t))
    names = {terms: _partial(metric, terms, order[0]) for terms in order}
    words = dict(zip(order, told_apart([_aspects(terms, order, names[terms]) for terms in order]), strict=True))
    found_names = {}
    for rank, terms in enumerate(order):
        rest = [word for word in words[terms] if word != names[terms]]
        bracket = f" ({', '.join(rest)})" if rest and rank else ""
        found_names[terms] = (rank, names[terms] + bracket)
    return found_names


def _partial(metric: str, terms: Terms, plain: Terms) -> str:
    """Return the name of a mean; one over other members than the plain column's is another metric."""
    if terms.names == plain.names or not plain.members:
        return metric
    names = terms.names
    return f"{metric} of {'+'.join(names) if len(names) < 4 else f'{len(names)} sets'}"


def _aspects(terms: Terms, every: Sequence[Terms], name: str) -> dict[str, str]:
    hashes = {_data_hash(other) for other in every}
    digits = next(n for n in DIGITS if len({one[:n] for one in hashes}) == len(hashes))
    found = {
        "name": name,
        "version": f"suite version {terms.version}",
        "classes": f"classes {terms.classes[:digits]}",
        "protocol": _short(clauses(terms.protocol, every[0].protocol)),
        "data": f"data {_data_hash(terms)[:digits]}",
        "members": f"members {content_key(list(terms.names))[:digits]}",
    }
    return {aspect: word for aspect, word in found.items() if word}


def _data_hash(terms: Terms) -> str:
    """Return the hash of the data, or one over all hashes if there are several data sets."""
    hashes = {one for _, data in terms.members for _, one in data}
    return hashes.pop() if len(hashes) == 1 else content_key([list(map(list, data)) for _, data in terms.members])


def clauses(protocol: str, plain: str) -> str:
    """Return what a protocol says beyond another, or what it leaves out."""
    mine, other = protocol.split("; "), plain.split("; ")
    more, less = ([part for part in a if part not in b] for a, b in ((mine, other), (other, mine)))
    return "; ".join(more) or "; ".join(f"without {part}" for part in less) or protocol


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"protocol {content_key(text)[: DIGITS[0]]}"
