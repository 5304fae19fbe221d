"""Object bias: boxes, thirds and gaps by hand, and the suite on objects whose recognition hangs on their size."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from harness.core.classes import load_classes
from harness.core.errors import DataMissing, UserError
from harness.core.resources import read_resource
from harness.microworld.causes import SHAPES
from harness.microworld.datasets.objects import object_folders, write_objects
from harness.microworld.placement import POSITIONS, SIZES, partner_position, partner_size
from suites import object_bias
from suites.bias.cards import In9Card
from suites.bias.coco_objects import read_coco_objects, visible_box
from suites.bias.objects import (
    LEVELS,
    gap,
    gap_units,
    load_card,
    measure_box,
    predict_rows,
    read_masks,
    read_objects,
    score,
    thirds,
    usual,
)
from suites.object_bias import ObjectBias, ObjectSettings
from tests.suites.bias.conftest import values

IDS = load_classes("micro").ids
PER_CLASS = 24
CARD = In9Card.load(
    json.loads(read_resource("package:harness.microworld/cards/objects.json"))
    | {"expected_per_variation": len(SHAPES) * PER_CLASS}
)


def test_the_box_of_an_object_by_hand() -> None:
    """Rows 2 to 5 and columns 0 to 8 of 10 x 10: size sqrt(0.36), height (2 + 6) / 2 / 10. Values up to 16 are black."""
    picture = np.full((10, 10, 3), 16, dtype=np.uint8)
    picture[2, 0, 1] = picture[5, 8, 2] = 17
    assert measure_box(picture) == pytest.approx((0.6, 0.4))
    assert np.isnan(measure_box(np.zeros((4, 4, 3), dtype=np.uint8))).all()


def test_thirds_of_all_objects_and_the_usual_one_of_a_class() -> None:
    found = thirds(np.array([1.0, 2, 3, 4, 5, 6, np.nan]), LEVELS["size"])
    assert found.tolist() == ["small", "small", "medium", "medium", "large", "large", ""]
    label, levels = np.array([0, 0, 0, 1, 1]), np.array(["large", "small", "small", "large", "small"])
    assert usual(label, levels, LEVELS["size"]).tolist() == [False, True, True, False, True], "the first of equals"


def cells(accuracy, counts, often=None) -> dict[str, np.ndarray]:
    """Return rows with the given accuracy and count of each (class, size); positions are all the same."""
    label, level, correct = [], [], []
    for place, shares in enumerate(accuracy):
        for share, name, count in zip(shares, LEVELS["size"], counts[place], strict=True):
            right = round(share * count)
            label += [place] * count
            level += [name] * count
            correct += [True] * right + [False] * (count - right)
    label, level = np.asarray(label), np.asarray(level)
    n = len(label)
    rows = {"image": np.asarray([f"i{i:04d}" for i in range(n)]), "label": label, "correct": np.asarray(correct),
            "size_class": level, "usual_size": usual(label, level, LEVELS["size"]),
            "position_class": np.full(n, "middle"), "usual_position": np.full(n, True)}  # fmt: skip
    return rows | {"converted": np.zeros(n, dtype=bool), "truncated": np.zeros(n, dtype=bool)}


COUNTS = [[40, 20, 20], [20, 40, 20], [20, 20, 40]]


def test_what_classes_and_sizes_are_worth_by_themselves_is_no_gap() -> None:
    rows = cells([[0.4, 0.5, 0.6], [0.5, 0.6, 0.7], [0.6, 0.7, 0.8]], COUNTS)
    assert gap(rows, "size").value == pytest.approx(0, abs=1e-12)


def test_the_gap_by_hand() -> None:
    """The cells above with 0.2 more on the diagonal, where each class has most images. By hand from the nine accuracies: the mean of
    the diagonal less that of the rest, as every class and every size is on it once."""
    table = np.array([[0.4, 0.5, 0.6], [0.5, 0.6, 0.7], [0.6, 0.7, 0.8]]) + 0.2 * np.eye(3)
    rows = cells(table, COUNTS)
    found = gap(rows, "size")
    assert found.value == pytest.approx(table.trace() / 3 - (table.sum() - table.trace()) / 6) == pytest.approx(0.2)
    assert found.low is not None and found.high is not None and 0.05 < found.low < 0.2 < found.high < 0.35
    assert found.n == len(rows["label"])


def test_classes_count_alike_however_many_images_they_have() -> None:
    accuracy = [[0.9, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    few, many = (cells(accuracy, [[2 * k, k, k], [20, 40, 20], [20, 20, 40]]) for k in (20, 200))
    assert gap(few, "size").value == pytest.approx(gap(many, "size").value) == pytest.approx(0.4 / 3)


def test_no_gap_where_all_classes_have_one_usual_size() -> None:
    rows = cells([[0.5, 0.5, 0.5]] * 3, [[40, 20, 20]] * 3)
    found = gap(rows, "size")
    assert found.value is None and found.reason == "no class, or every class, has the same usual size"


def test_units_are_those_of_the_gap_and_order_does_not_count() -> None:
    rows = cells([[0.7, 0.5, 0.6], [0.5, 0.8, 0.7], [0.6, 0.7, 0.9]], COUNTS)
    order = np.random.default_rng(0).permutation(len(rows["label"]))
    shuffled = {name: column[order] for name, column in rows.items()}
    value = gap(rows, "size").value
    assert value is not None and gap_units(rows, "size_gap").value() == pytest.approx(100 * value)
    assert gap_units(rows, "size_gap@2of3").metric == "size_gap@2of3"
    assert score(shuffled, CARD) == score(rows, CARD)


def test_a_paired_difference_of_gaps_is_sharper_than_two_samples() -> None:
    """Two networks that differ in few answers: the spread of the paired difference is a fraction of that of one gap."""
    rows = cells([[0.7, 0.5, 0.6], [0.5, 0.8, 0.7], [0.6, 0.7, 0.9]], COUNTS)
    one = gap_units(rows, "size_gap").contributions()
    other = rows | {"correct": rows["correct"].copy()}
    other["correct"][:3] = False
    two = gap_units(other, "size_gap").contributions()
    assert np.sqrt(((one - two) ** 2).sum()) < 0.3 * np.sqrt((one**2).sum())


def test_objects_without_a_box_are_left_out_and_counted() -> None:
    rows = cells([[0.4, 0.5, 0.6], [0.5, 0.6, 0.7], [0.6, 0.7, 0.8]], COUNTS)
    for name in ("size_class", "position_class"):
        rows[name] = rows[name].copy()
        rows[name][:5] = ""
    found = score(rows, CARD)
    assert values(found)["size_gap"].n == len(rows["label"]) - 5 and values(found)["accuracy"].n == len(rows["label"])
    assert "5 images whose only_fg is black have no size and no position" in found.notes


@pytest.mark.parametrize(("share", "passed"), [(0.2, False), (0.3, True)])
def test_recognition_must_be_three_times_chance(share: float, passed: bool) -> None:
    check = score(cells([[share] * 3] * 3, COUNTS), CARD).checks[0]
    assert check.threshold == pytest.approx(3 / 12) and check.passed == passed


class Context:
    """What the suite uses of a context."""

    def __init__(self, root) -> None:
        self.root, self.calls = root, 0

    def data(self, name):
        assert name == "objects"
        return self.root

    def card(self, name):
        return CARD.model_dump()

    def settings(self, model):
        return model(data="objects")

    def progress(self, done, total, note):
        self.calls += 1


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    root = tmp_path_factory.mktemp("objects")
    write_objects(root, PER_CLASS, 0.4)
    return root


class Knows:
    """Recognise every object, or only those of the size that their class prefers; the answers are handed over."""

    image_size, interpolation, identity = 0, "bilinear", "knows"

    def __init__(self, answers, classes=IDS) -> None:
        self.answers, self.classes, self.seen = answers, classes, 0

    def __call__(self, images):
        import torch

        found = torch.nn.functional.one_hot(
            torch.as_tensor(self.answers[self.seen : self.seen + len(images)]), len(self.classes)
        )
        self.seen += len(images)
        return found.float()


def test_the_embedded_objects_show_the_usual_size_and_place_of_their_class(objects) -> None:
    rows = predict_rows(
        Knows(np.zeros(len(SHAPES) * PER_CLASS, dtype=int)), objects, CARD, None, ObjectSettings(data="objects")
    )
    for factor, names, partner in (("size", SIZES, partner_size), ("position", POSITIONS, partner_position)):
        assert names == LEVELS[factor]
        drawn = np.asarray(names)[partner(rows["label"])]
        assert (rows[f"{factor}_class"][rows[f"usual_{factor}"]] == drawn[rows[f"usual_{factor}"]]).mean() > 0.8
        assert 0.45 < rows[f"usual_{factor}"].mean() < 0.75


def test_a_network_that_needs_the_usual_size_has_a_size_gap_and_no_position_gap(objects, monkeypatch) -> None:
    suite, settings = ObjectBias(), ObjectSettings(data="objects")
    blind = predict_rows(Knows(np.zeros(len(SHAPES) * PER_CLASS, dtype=int)), objects, CARD, None, settings)
    answers = np.where(blind["usual_size"], blind["label"], (blind["label"] + 1) % len(IDS))
    monkeypatch.setattr(object_bias, "classifier", lambda ctx: Knows(answers))
    (item,) = suite.items(settings, "resnet10")
    assert item.data == ("objects",) and suite.items(ObjectSettings(), "")[0].data == ("in9",)
    rows = suite.rows(Context(objects))
    found = values(suite.score(rows, item, settings, {"objects": CARD.model_dump()}))
    assert found["size_gap"].value == pytest.approx(100) and abs(found["position_gap"].value) < 20
    assert set(suite.columns) <= set(rows)


def test_a_network_that_recognises_everything_has_no_gap(objects, monkeypatch) -> None:
    label = np.repeat(np.arange(len(SHAPES)), PER_CLASS)
    monkeypatch.setattr(object_bias, "classifier", lambda ctx: Knows(label))
    suite = ObjectBias()
    rows = suite.rows(Context(objects))
    found = suite.score(rows, suite.items(ObjectSettings(data="objects"), "")[0], ObjectSettings(data="objects"),
                        {"objects": CARD.model_dump()})  # fmt: skip
    assert [values(found)[f"{factor}_gap"].value for factor in LEVELS] == pytest.approx([0, 0], abs=1e-9)
    assert {metric.role for metric in found.metrics if metric.name.endswith("_gap")} == {"secondary"}


def test_an_image_without_its_object_is_refused(tmp_path) -> None:
    write_objects(tmp_path, 2, 0.4)
    card = CARD.model_copy(update={"expected_per_variation": 2 * len(SHAPES)})
    folder = tmp_path / "bg_challenge" / "only_fg" / "val" / object_folders()[0]
    first = sorted(folder.iterdir())[0]
    first.rename(first.with_name("m00000001_99999.JPEG"))
    with pytest.raises(UserError, match="do not show the same objects"):
        read_objects(tmp_path, card)
    with pytest.raises(DataMissing):
        read_objects(tmp_path / "bg_challenge" / "original", card)


def test_masks_of_the_archive_are_used_where_it_has_them(objects, tmp_path) -> None:
    """A mask of `fg_mask` is keyed by the original; the box around it decides, whatever only_fg holds."""
    shutil.copytree(objects / "bg_challenge", tmp_path / "bg_challenge")
    base, originals, _ = read_objects(tmp_path, CARD)
    assert read_masks(base, originals) is None
    for place, view in enumerate(originals):
        mask = np.zeros((64, 64), dtype=bool)
        mask[8 : 24 + place % 2 * 8, 16:32] = True
        path = (base / "fg_mask" / view.name.removeprefix("original/")).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, mask)
    rows = predict_rows(
        Knows(np.zeros(len(originals), dtype=int)), tmp_path, CARD, None, ObjectSettings(data="objects")
    )
    assert rows["size"][:2] == pytest.approx([16 / 64, (24 * 16) ** 0.5 / 64])
    assert rows["position"][:2] == pytest.approx([16 / 64, 20 / 64])
    np.save(path, np.zeros((64, 64)))
    with pytest.raises(UserError, match="is no mask of original/val/11_"):
        read_masks(base, originals)
    path.unlink()
    with pytest.raises(UserError, match="is no mask"):
        read_masks(base, originals)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((150, 50, 100, 50), ((0.5 * 0.25) ** 0.5, 0.375)),
        ((60, 0, 80, 200), ((0.2 * 1.0) ** 0.5, 0.5)),
        ((0, 0, 150, 100), None),
        ((150, 50, 0, 50), None),
    ],
)
def test_the_visible_part_of_a_box_by_hand(box, expected) -> None:
    """A picture of 400 x 200: the network sees x from 100 to 300."""
    found = visible_box(box, 400, 200)
    assert np.isnan(found).all() if expected is None else found == pytest.approx(expected)


def coco(root, annotations, files=8) -> None:
    """Write pictures of 80 x 60 and annotations in the form of instances_val2017.json: (image, category, box, crowd)."""
    names = {18: "dog", 3: "car", 1: "person", 44: "bottle"}
    images = [{"id": 100 + i, "file_name": f"{100 + i:012d}.jpg", "width": 80, "height": 60} for i in range(files)]
    listed = [{"id": i + 1, "image_id": 100 + image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd,
               "segmentation": [[0, 0, 1, 0, 1, 1]]} for i, (image, category, box, crowd) in enumerate(annotations)]  # fmt: skip
    content = {
        "images": images,
        "annotations": listed,
        "categories": [{"id": k, "name": v, "supercategory": "x"} for k, v in names.items()],
    }
    for folder in ("annotations", "val2017"):
        (root / folder).mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    for image in images:
        Image.new("RGB", (80, 60), (image["id"], 80, 40)).save(root / "val2017" / image["file_name"])


def test_objects_of_coco_are_read_from_its_annotations(tmp_path, monkeypatch) -> None:
    """Crowds and other categories are not looked at; pictures of two categories and hidden objects are left out."""
    centre, low = [30.0, 20.0, 20.0, 20.0], [30.0, 40.0, 15.0, 15.0]
    coco(tmp_path, [
        (0, 18, centre, 0), (0, 18, [30.0, 0.0, 5.0, 5.0], 0), (0, 1, [0.0, 0.0, 80.0, 60.0], 0),
        (1, 3, low, 0), (1, 18, centre, 1),
        (2, 18, centre, 0), (2, 44, low, 0),
        (3, 3, [0.0, 0.0, 12.0, 60.0], 0),
        (4, 1, centre, 0),
        (5, 18, low, 0), (6, 3, centre, 0),
    ])  # fmt: skip
    ids = load_classes("imagenet1k").ids
    dog, car = (ids.index(load_card("coco").categories[name][0]) for name in ("dog", "car"))
    network = Knows(np.asarray([dog, car, car, car]), ids)
    monkeypatch.setattr(object_bias, "classifier", lambda ctx: network)
    context = SimpleNamespace(data=lambda name: tmp_path, card=lambda name: {}, progress=lambda *_: None,
                              settings=lambda model: model(data="coco"))  # fmt: skip
    suite, settings = ObjectBias(), ObjectSettings(data="coco")
    (item,) = suite.items(settings, "resnet50")
    rows = suite.rows(context)
    assert item.data == ("coco",) and list(rows["image"]) == [f"{100 + i:012d}.jpg" for i in (0, 1, 5, 6)]
    names = list(load_card("coco").categories)
    assert [names[label] for label in rows["label"]] == ["dog", "car", "dog", "car"]
    assert list(rows["correct"]) == [True, True, False, True]
    assert list(rows["size"]) == pytest.approx([20 / 60, 15 / 60, 15 / 60, 20 / 60])
    assert list(rows["position"]) == pytest.approx([30 / 60, 47.5 / 60, 47.5 / 60, 30 / 60])
    found = suite.score(rows, item, settings, {"coco": {}})
    assert values(found)["accuracy"].value == pytest.approx(0.75) and not any(
        "geometry" in note for note in found.notes
    )


def test_annotations_of_coco_without_two_such_categories_are_refused(tmp_path) -> None:
    coco(tmp_path, [(0, 18, [30.0, 20.0, 20.0, 20.0], 0), (1, 1, [0.0, 0.0, 80.0, 60.0], 0)])
    with pytest.raises(UserError, match="has no objects to recognise"):
        read_coco_objects(tmp_path, load_card("coco"))
    with pytest.raises(DataMissing):
        read_coco_objects(tmp_path / "annotations", load_card("coco"))
