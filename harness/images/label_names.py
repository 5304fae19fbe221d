"""What the label names that a data set states itself mean among ImageNet's classes and those of a list.

A name may be a class id (wnid), the name of a class list, or one or all of the synset's lemmas in WordNet ("tench, Tinca
tinca"). Several ImageNet classes share a name ("crane" is a bird and a machine), so a name stands for a class only where
nothing else is possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from harness.core.classes import ClassList, load_classes
from harness.core.errors import UserError

Table = Mapping[str, frozenset[str]]
"""Name to the ids of the classes that bear it."""


def match_label_names(names: Sequence[str], classes: ClassList) -> tuple[str, ...]:
    """Return the class id that each label name stands for, in order.

    Args:
        names: Names of labels 0, 1, ... as the data set states them.
        classes: Class list of the run; its ids and names count beside ImageNet's.

    Raises:
        UserError: a name stands for no class or for several, or two names stand for one class.
    """
    known = load_classes("imagenet1k")
    candidates = _candidates(names, classes, known)
    if len(names) == len(known):
        candidates = _by_order(candidates, known.ids)
    odd = {name: ids for name, ids in zip(names, candidates, strict=True) if len(ids) != 1}
    if odd:
        name, ids = next(iter(odd.items()))
        meaning = f"may be {' or '.join(sorted(ids))}" if ids else f"names no class of {classes.name} or ImageNet"
        raise _unclear(f"{len(odd)} of {len(names)} label names are not certain: {name!r} {meaning}")
    found = tuple(next(iter(ids)) for ids in candidates)
    twice = [class_id for class_id, count in Counter(found).items() if count > 1]
    if twice:
        claims = [name for name, class_id in zip(names, found, strict=True) if class_id == twice[0]]
        raise _unclear(f"{' and '.join(map(repr, claims))} both stand for {twice[0]}")
    return found


def _candidates(names: Sequence[str], classes: ClassList, known: ClassList) -> list[frozenset[str]]:
    """Return the classes that each name may stand for.

    A vocabulary that knows all names decides where they are its whole list (all such together where several do). Else any
    synonym counts, and case tells two classes apart ("Cardigan", the dog) where every name is spelt as a vocabulary spells it.
    """
    lemmas = _lemmas(known)
    lists = [dict(zip(each.ids, each.names, strict=True)) for each in (classes, known)]
    own = _table({class_id: [class_id] for each in (classes, known) for class_id in each.ids}, str)
    whole = [own, *(_table({i: [name] for i, name in each.items()}, _plain) for each in (*lists, lemmas))]
    fitting = [table for table in whole if all(_plain(name) in table or name in table for name in names)]
    found = [_union(fitting, name) for name in names]
    if fitting and (len(names) == len(known) or frozenset().union(*found) == {*classes.ids}):
        return found
    synonyms = {i: [*lemmas.get(i, "").split(", "), lemmas.get(i, ""), *(each.get(i, "") for each in lists)]
                for i in {*lists[0], *lists[1]}}  # fmt: skip
    spelt, any_case = _table(synonyms, _spelling), [own, _table(synonyms, _plain)]
    exact = [own.get(name, spelt.get(_spelling(name), frozenset())) for name in names]
    return exact if all(exact) else [_union(any_case, name) or _union(any_case, *name.split(", ")) for name in names]


def _union(tables: Sequence[Table], *names: str) -> frozenset[str]:
    return frozenset().union(*(t.get(name, t.get(_plain(name), frozenset())) for t in tables for name in names))


def _by_order(candidates: Sequence[frozenset[str]], ids: Sequence[str]) -> list[frozenset[str]]:
    """Decide the names that stay open in a whole list of ImageNet, where every certain name stands at its sorted place."""
    certain = [len(each) == 1 for each in candidates]
    in_order = all(each == {class_id} for each, class_id, sure in zip(candidates, ids, certain, strict=True) if sure)
    if not in_order or sum(certain) < 0.95 * len(ids):
        return list(candidates)
    settled = [
        each if sure else frozenset({class_id}) & each
        for each, class_id, sure in zip(candidates, ids, certain, strict=True)
    ]
    left = [place for place, each in enumerate(settled) if not each]
    if len(left) == 1:  # one name and one class
        settled[left[0]] = frozenset({ids[left[0]]})
    return settled


def _table(names: Mapping[str, Sequence[str]], normal: Callable[[str], str]) -> Table:
    found: dict[str, set[str]] = {}
    for class_id, each in names.items():
        for name in filter(None, each):
            found.setdefault(normal(name), set()).add(class_id)
    return {name: frozenset(ids) for name, ids in found.items()}


def _spelling(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _plain(name: str) -> str:
    return _spelling(name).casefold()


def _lemmas(known: ClassList) -> dict[str, str]:
    """Return the lemmas of ImageNet's synsets by wnid, as timm ships them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {class_id: info.label_name_to_description(class_id, detailed=False) for class_id in known.ids}


def _unclear(why: str) -> UserError:
    return UserError(
        "what the labels mean is not certain",
        why,
        "write a file of lines 'label wnid' by what the publisher says, and give its path as class_map",
    )
