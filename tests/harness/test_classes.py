"""Class lists: what the outputs of a head mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.core.classes import coverage, load_classes, load_folder_classes
from harness.core.errors import UserError

IN100 = [
    15, 45, 54, 57, 64, 74, 90, 99, 119, 120, 122, 131, 137, 151, 155, 157, 158, 166, 167, 169, 176, 180, 209, 211, 222, 228,
    234, 236, 242, 246, 267, 268, 272, 275, 277, 281, 299, 305, 313, 317, 331, 342, 368, 374, 407, 421, 431, 449, 452, 455,
    479, 494, 498, 503, 508, 544, 560, 570, 592, 593, 599, 606, 608, 619, 620, 653, 659, 662, 665, 667, 674, 682, 703, 708,
    717, 724, 748, 758, 765, 766, 772, 775, 796, 798, 830, 854, 857, 858, 872, 876, 882, 904, 908, 936, 938, 953, 959, 960,
    993, 994,
]  # fmt: skip


def test_transfer_in_domain_imagenet100_hash_and_index_table() -> None:
    small, full = load_classes("imagenet100"), load_classes("imagenet1k")
    assert small.ids_hash == "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"
    assert (small.ids[0], small.ids[-1], len(small)) == ("n01558993", "n13040303", 100)
    assert [full.ids.index(wnid) for wnid in small.ids] == IN100
    assert [full.names[i] for i in IN100] == list(small.names)


def test_transfer_in_domain_imagenet1k_is_the_sorted_list() -> None:
    full = load_classes("imagenet1k")
    assert len(full) == 1000 and list(full.ids) == sorted(full.ids)
    assert (full.ids[0], full.names[0], full.ids[-1]) == ("n01440764", "tench", "n15075141")
    assert set(full.duplicate_names()) <= set(full.names)
    named = hashlib.sha256("\n".join(full.names).encode()).hexdigest()
    assert named.startswith("571ae1c583b4be7da875194")


def test_transfer_in_domain_embedded_list_is_sorted_too() -> None:
    embedded = load_classes("micro")
    assert list(embedded.ids) == sorted(set(embedded.ids)) and len(embedded) == 12


def test_the_list_of_a_head_has_any_order_and_needs_no_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\ufeffn02086240\n\nn01440764 my tench\nmine\n", encoding="utf-8")
    found = load_classes(str(path))
    assert found.ids == ("n02086240", "n01440764", "mine") and found.names == ("Shih Tzu", "my tench", "mine")


def test_only_the_list_of_training_folders_must_be_sorted(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("n1 a\nn3 c\nn2 b\n")
    assert load_classes(str(path)).ids == ("n1", "n3", "n2")
    with pytest.raises(UserError, match="not sorted") as caught:
        load_folder_classes(str(path))
    assert "line 2" in caught.value.what and "--checkpoint" in caught.value.fix
    path.write_text("n1 a\nn2 b\n")
    assert load_folder_classes(str(path)) == load_classes(str(path))


def test_repeated_empty_and_unknown_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for content, words in ((b"n1 a\nn1 b\n", "twice"), (b"\n", "empty"), (b"n1 \xff\n", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            load_classes(str(path))
    with pytest.raises(UserError, match="unknown class list"):
        load_classes("imagenet-100")


def test_coverage_of_a_restricted_head_is_computed() -> None:
    small, full = load_classes("imagenet100"), load_classes("imagenet1k")
    assert coverage(small.ids, full.ids).text == "100of1000" and not coverage(small.ids, full.ids).complete
    assert coverage(full.ids, small.ids).complete and coverage(full.ids, small.ids).outputs == tuple(IN100)
    backwards = coverage(full.ids[::-1], small.ids)
    assert [full.ids[::-1][i] for i in backwards.outputs] == list(small.ids)
    part = coverage(("n3", "n1"), ("n1", "n2", "n3"))
    assert part.outputs == (1, 0) and part.missing == ("n2",) and part.text == "2of3"
    with pytest.raises(UserError, match="no ordered class list"):
        coverage((), ("n1",))
    with pytest.raises(UserError, match="twice"):
        coverage(("n1", "n1"), ("n1",))
