"""Which results are one row: the same generator, backbone and origin, made the same way and measured through the same preprocessing.

Runs of one setup that differ in their seeds are averaged, everything else stands apart. What a record does not say is taken from
the other records of its network; a record that still says too little (older schemas) joins the one row that it can belong to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.core.identity import content_key
from leaderboard.network import OLDER, OUTSIDE, facts_of, words
from leaderboard.sources import Entry, Origin
from leaderboard.terms import Data, base_terms, data_of, fewest_words, tells_apart

SeedPair = tuple[int, int]
"""Generator seed and train seed."""
DIGITS = 6


@dataclass(frozen=True)
class RowKey:
    """What a row stands for; its seeds are averaged."""

    generator: str
    backbone: str
    origin: Origin
    identity: str = ""
    """Hash of how the network was made, seeds apart, and of how images reach it."""
    variant: str = field(default="", compare=False)
    """What tells it from the other rows of its generator and backbone, in words; empty where there is none."""

    @property
    def label(self) -> str:
        """Return the generator's name, distinguished from its other rows."""
        return f"{self.generator} ({self.variant})" if self.variant else self.generator

    @property
    def order(self) -> tuple[str, ...]:
        """Return what rows are sorted by."""
        return self.backbone, self.generator, self.variant, self.origin, self.identity


@dataclass(frozen=True)
class Made:
    """What is known of how a network was made and is fed: the recipe's hash always, facts and setup perhaps."""

    recipe: str
    facts: str = ""
    """Hash of the facts; empty where no record says any."""
    setup: str = ""
    """Key without seeds; empty where unknown."""
    part: str = ""
    """Data set or network of a result whose setup is unknown and that others of equal seeds contradict."""

    @property
    def known(self) -> int:
        """Return how much is known."""
        return bool(self.facts) + bool(self.setup)

    def fits(self, other: Made) -> bool:
        """Return whether nothing known differs."""
        pairs = ((self.facts, other.facts), (self.setup, other.setup))
        return self.recipe == other.recipe and all(not a or not b or a == b for a, b in pairs)


@dataclass
class Network:
    """One network, or one set of images, with the places of its results in a list of entries."""

    generator: str
    backbone: str
    origin: Origin
    seeds: SeedPair
    made: Made
    facts: dict[str, Any]
    checkpoint: str
    dataset: str
    dataset_setup: str
    places: list[int]

    def contradicts(self, other: Network) -> bool:
        """Return whether two are other networks of the same seeds, or made from other images of the same seed."""
        return self.other_images(other) or (self.seeds == other.seeds and _differ(self.checkpoint, other.checkpoint))

    def other_images(self, other: Network) -> bool:
        """Return whether the images of the two were made another way, or differ though their seed is the same."""
        if self.dataset_setup and other.dataset_setup:
            return self.dataset_setup != other.dataset_setup
        return self.seeds[0] == other.seeds[0] and _differ(self.dataset, other.dataset)


def _differ(first: str, second: str) -> bool:
    return bool(first and second and first != second)


def networks(entries: Sequence[Entry]) -> list[Network]:
    """Return the networks behind entries; records of one checkpoint share what any of them says."""
    found: dict[tuple[object, ...], list[int]] = {}
    for place, entry in enumerate(entries):
        r, s = entry.record, entry.record.subject
        seeds = (s.generator_seed, s.train_seed if s.backbone != "-" else 0)
        made_from = (r.checkpoint if s.backbone != "-" else "") or r.dataset
        bare = (s.generator, s.backbone, entry.origin, seeds, r.comparability.recipe, made_from)
        found.setdefault(bare, []).append(place)
    return [one for places in found.values() for one in _networks([(place, entries[place]) for place in places])]


def _by_facts(members: Sequence[tuple[int, Entry]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Return the facts that entries state with their places; those that state none join the others if these all agree."""
    stated: list[tuple[dict[str, Any], list[int]]] = []
    for place, entry in members:
        facts = facts_of(entry.record)
        places = next((places for known, places in stated if known == facts), None)
        if places is None:
            stated.append((facts, [place]))
        else:
            places.append(place)
    silent = [places for facts, places in stated if not facts]
    stated = [(facts, places) for facts, places in stated if facts]
    if len(stated) == 1:
        stated[0][1].extend(place for places in silent for place in places)
    else:
        stated += [({}, places) for places in silent]
    return stated


def _networks(members: Sequence[tuple[int, Entry]]) -> list[Network]:
    """Return the networks of entries that agree in everything but the facts they state; mostly one."""
    first, s = members[0][1].record, members[0][1].record.subject
    setups = {
        role: _said(entry.record.setups.get(role, "") for _, entry in members) for role in ("checkpoint", "dataset")
    }
    setup = setups["checkpoint"] if s.backbone != "-" else setups["dataset"]
    if first.comparability.recipe in OUTSIDE:
        setup = setup or first.checkpoint  # an imported file has no seeds to leave out
    seeds = (s.generator_seed, s.train_seed if s.backbone != "-" else 0)
    dataset = _said(entry.record.dataset for _, entry in members)
    return [
        Network(s.generator, s.backbone, members[0][1].origin, seeds,
                Made(first.comparability.recipe, content_key(facts) if facts else "", setup),
                facts, first.checkpoint, dataset, setups["dataset"], places)
        for facts, places in _by_facts(members)
    ]  # fmt: skip


def _said(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


# --- from networks to rows ----------------------------------------------------------------------------------------------

Lot = list[Network]
"""The networks of one row."""


def lots(members: Sequence[Network]) -> dict[Made, Lot]:
    """Return the networks of one generator, backbone and origin, by what they are seeds of."""
    found: dict[Made, Lot] = {}
    for network in members:
        found.setdefault(network.made, []).append(network)
    for made in [made for made in found if not made.setup]:
        for part, lot in _split(found.pop(made)).items():
            found[replace(made, part=part)] = lot
    for level in (1, 0):
        for made in [made for made in found if made.known == level]:
            fitting = [
                other for other, lot in found.items()
                if other.known > level and made.fits(other) and not _contradict(found[made], lot)
            ]  # fmt: skip
            if len(fitting) == 1:  # where two could be meant nothing is guessed
                found[fitting[0]] += found.pop(made)
    return found


def _split(lot: Lot) -> dict[str, Lot]:
    """Split results of unknown setup where equal seeds stand for several data sets or networks."""
    for name in ("dataset", "checkpoint"):
        if not _contradict(lot, lot):
            break
        parts: dict[str, Lot] = defaultdict(list)
        for network in lot:
            parts[getattr(network, name)].append(network)
        if len(parts) > 1:
            return {
                f"{name} {key}/{rest}": found for key, part in parts.items() for rest, found in _split(part).items()
            }
    return {"": lot}


def _contradict(first: Lot, second: Lot) -> bool:
    return any(one.contradicts(other) for one in first for other in second)


def row_keys(entries: Sequence[Entry]) -> list[list[tuple[RowKey, SeedPair]]]:
    """Return for each entry its rows and seeds: its own row, or those of all backbones where it measures the images."""
    groups: dict[tuple[str, str, Origin], list[Network]] = defaultdict(list)
    for network in networks(entries):
        groups[network.generator, network.backbone, network.origin].append(network)
    rows = {RowKey(*group, identity=content_key([*vars(made).values()])): lot
            for group, members in groups.items() for made, lot in lots(members).items()}  # fmt: skip
    named = dict(zip(rows, _named(rows), strict=True))
    found: list[list[tuple[RowKey, SeedPair]]] = [[] for _ in entries]
    for key, lot in rows.items():
        for network in lot:
            shown = [(named[key], network.seeds)]
            if network.backbone == "-":
                shown = _measured_on(network, rows, named) or shown
            for place in network.places:
                found[place] = shown
    return found


def _measured_on(
    images: Network, rows: dict[RowKey, Lot], named: dict[RowKey, RowKey]
) -> list[tuple[RowKey, SeedPair]]:
    """Return the rows of the backbones that were trained on a set of images."""
    keys = [
        named[key] for key, lot in rows.items()
        if (key.generator, key.origin) == (images.generator, images.origin) and key.backbone != "-"
        and any(n.seeds[0] == images.seeds[0] and not _differ(n.dataset, images.dataset) for n in lot)
    ]  # fmt: skip
    return [(key, images.seeds) for key in sorted(keys, key=lambda key: key.order)]


def _named(rows: dict[RowKey, Lot]) -> list[RowKey]:
    """Return the rows with what tells each from the others of its generator."""
    return [replace(key, variant=", ".join(_variant(key, lot, rows))) for key, lot in rows.items()]


def _variant(key: RowKey, lot: Lot, rows: dict[RowKey, Lot]) -> list[str]:
    alike = [
        other for at, other in rows.items()
        if at != key and (at.generator, at.backbone) == (key.generator, key.backbone)
        and (at.origin == key.origin or not same_thing(lot, other))
    ]  # fmt: skip
    newer = [other for other in alike if _facts(other)]
    others = newer if _facts(lot) else alike  # what an older record does not say tells nothing apart
    aspects, unlike = _aspects(lot, bool(newer)), [_aspects(other, bool(newer)) for other in others]
    found = list(fewest_words(aspects, unlike))
    if not tells_apart(found, aspects, unlike):
        setups = [_setup(other)[:DIGITS] for other in others]
        found += [f"setup {_setup(lot)[:DIGITS]}"] if _setup(lot)[:DIGITS] not in setups else []
    images, elsewhere = aspects.get("dataset", ""), [at for at in rows if at.generator == key.generator]
    if (
        images
        and images not in found
        and any(_other_images(lot, rows[at]) for at in elsewhere if at.backbone != key.backbone)
    ):
        found.append(images)
    return found


def row_words(entries: Sequence[Entry], rows: Iterable[RowKey]) -> dict[RowKey, set[str]]:
    """Return for rows of some entries every word that a board may tell them apart by, and the keys of what they were made from."""
    found: dict[RowKey, set[str]] = {key: set() for key in rows}
    for entry, placed in zip(entries, row_keys(entries), strict=True):
        r = entry.record
        for key, _ in placed:
            if key in found:
                keys = {r.dataset, r.checkpoint, *r.setups.values()} - {""}
                facts = facts_of(r)
                short = {f"{name}{made_from[:DIGITS]}" for name in ("", "setup ") for made_from in keys}
                older = set() if facts else {OLDER, f"recipe {r.comparability.recipe[:DIGITS]}"}
                found[key] |= {*words(facts).values(), *keys, *short, *older}
    return found


def same_thing(first: Lot, second: Lot) -> bool:
    """Return whether nothing known tells the networks of two rows apart but their seeds."""
    return all(a.made.fits(b.made) for a in first for b in second) and not _contradict(first, second)


def _other_images(first: Lot, second: Lot) -> bool:
    return any(one.other_images(other) for one in first for other in second)


def _facts(lot: Lot) -> dict[str, Any]:
    return next((network.facts for network in lot if network.facts), {})


def _aspects(lot: Lot, beside_newer: bool) -> dict[str, str]:
    """Return in words what distinguishes a row from others, the most informative first."""
    recipe, facts = lot[0].made.recipe, _facts(lot)
    found = words(facts)
    if not facts and beside_newer:
        found["record"] = OLDER
    if not facts and recipe not in ("", *OUTSIDE):
        found["recipe"] = f"recipe {recipe[:DIGITS]}"
    images = _said(n.dataset_setup for n in lot) or min((n.dataset for n in lot), default="")
    return found | {"dataset": images[:DIGITS]} if images else found


def _setup(lot: Lot) -> str:
    """Return a key of how a row's networks were made, the last resort of telling rows apart."""
    return _said(n.made.setup for n in lot) or min((n.checkpoint for n in lot), default="")


def give_way(recorded: Sequence[Entry], own: Sequence[Entry]) -> list[Entry]:
    """Return the recorded entries but those that a run has itself: the same thing, measured by the same suite on the same terms."""
    mine, dropped = _grouped(own), set()
    for group, members in _grouped(recorded).items():
        for theirs in lots(members).values():
            for lot in lots(mine.get(group, [])).values():
                if same_thing(theirs, lot):
                    dropped |= _measured_too(recorded, theirs, own, lot)
    return [entry for place, entry in enumerate(recorded) if place not in dropped]


def _grouped(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Network]]:
    found: dict[tuple[str, str], list[Network]] = defaultdict(list)
    for network in networks(entries):
        found[network.generator, network.backbone].append(network)
    return found


def _measured_too(recorded: Sequence[Entry], theirs: Lot, own: Sequence[Entry], lot: Lot) -> set[int]:
    """Return the places of a recorded row's entries whose suite the run has on the same terms, and on the same data if at all."""
    mine = [own[place].record for network in lot for place in network.places]
    terms = {(r.suite, base_terms(r)) for r in mine}
    data: dict[tuple[str, str], set[Data]] = defaultdict(set)
    for r in mine:
        data[r.suite, r.item].add(data_of(r))
    return {
        place for network in theirs for place in network.places for r in [recorded[place].record]
        if (r.suite, base_terms(r)) in terms and data_of(r) in data.get((r.suite, r.item), {data_of(r)})
    }  # fmt: skip
