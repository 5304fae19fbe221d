"""Metrics from rows against pycocotools and against hand counts; intervals."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra 'perception')")

from suites.perception import stages
from suites.perception.coco_rows import coco_rows
from suites.perception.metrics import (
    ade_summary,
    arrange_ade,
    arrange_coco,
    coco_summary,
    jackknife,
    left_out,
    precision_summary,
)
from suites.perception.settings import AdeSettings

SIDE = 220


def rectangle(left: int, top: int, wide: int, high: int) -> dict[str, Any]:
    """Return box, polygon and area of an axis-parallel object."""
    corners = [left, top, left + wide, top, left + wide, top + high, left, top + high]
    return {"bbox": [left, top, wide, high], "segmentation": [corners], "area": wide * high}


def toy_truth(seed: int, n_images: int = 12) -> dict[str, Any]:
    """Draw objects of all sizes in three categories, some of them crowds; image 5 is empty."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image in range(1, n_images + 1):
        for _ in range(int(rng.integers(1, 6)) if image != 5 else 0):
            wide, high = (int(v) for v in rng.choice([12, 20, 45, 70, 110], 2))
            left, top = int(rng.integers(SIDE - wide)), int(rng.integers(SIDE - high))
            crowd = int(rng.random() < 0.15)
            shape = rectangle(left, top, wide, high)
            if crowd:
                shape["segmentation"] = run_length(left, top, wide, high)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": int(rng.choice([2, 5, 9])),
                "iscrowd": crowd, **shape,
            })  # fmt: skip
    return {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(1, n_images + 1)],
        "categories": [{"id": i, "name": f"c{i}"} for i in (2, 5, 9, 11)],
        "annotations": annotations,
    }


def run_length(left: int, top: int, wide: int, high: int) -> dict[str, Any]:
    """Return the column-major run lengths of a rectangle."""
    mask = np.zeros((SIDE, SIDE), dtype=np.int64)
    mask[top : top + high, left : left + wide] = 1
    flat = mask.T.reshape(-1)
    change = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *change, flat.size]).tolist()
    return {"size": [SIDE, SIDE], "counts": counts if flat[0] == 0 else [0, *counts]}


def encoded(left: float, top: float, wide: float, high: float) -> dict[str, Any]:
    """Return a compressed mask, as the toolbox dumps it."""
    from pycocotools import mask

    area = rectangle(round(left), round(top), max(1, round(wide)), max(1, round(high)))["segmentation"]
    code = mask.merge(mask.frPyObjects(area, SIDE, SIDE))
    return {"size": [SIDE, SIDE], "counts": code["counts"].decode()}


def noisy_detections(truth: dict[str, Any], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Shift the truth a little, change some categories, add false alarms; two-decimal scores give ties."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[dict[str, Any]]] = {"bbox": [], "segm": []}
    for annotation in truth["annotations"] * 3:
        box = [float(v) for v in np.asarray(annotation["bbox"]) + rng.normal(0, 4, 4)]
        box = [min(max(box[0], 0), SIDE - 3), min(max(box[1], 0), SIDE - 3), max(box[2], 2.0), max(box[3], 2.0)]
        category = annotation["category_id"] if rng.random() < 0.8 else int(rng.choice([2, 5, 9, 11]))
        item = {
            "image_id": annotation["image_id"] if rng.random() < 0.9 else 5, "category_id": category, "bbox": box,
            "score": round(float(rng.random()), 2),
        }  # fmt: skip
        found["bbox"].append(item)
        found["segm"].append({**item, "segmentation": encoded(*box)})
    return found


def reference(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> list[float]:
    """Return pycocotools' own six AP numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = {k: [dict(v) for v in truth[k]] for k in ("images", "categories", "annotations")}
        api.createIndex()
        results = [{k: v for k, v in item.items() if kind == "bbox" or k != "bbox"} for item in found]
        evaluation = COCOeval(api, api.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


@pytest.mark.parametrize("seed", range(4))
def test_perception_rows_equal_pycocotools(seed: int) -> None:
    """AP, AP50, AP75 and the three sizes from rows equal pycocotools to 1e-6, boxes and masks, in any row order."""
    truth = toy_truth(seed)
    found = noisy_detections(truth, seed)
    rows = coco_rows(truth, found).sample(frac=1, random_state=seed)
    for kind in ("bbox", "segm"):
        expected = reference(truth, found[kind], kind)
        values = list(coco_summary(rows, kind).values())
        np.testing.assert_allclose(values, [np.nan if v == -1 else v for v in expected], atol=1e-6)
        assert 0.01 < values[0] < 0.95


IDS = {
    "from 0": lambda n: n,
    "negative": lambda n: n - 40,
    "64-bit": lambda n: 2**53 + n,  # neighbours that a float cannot tell apart
    "around 0": lambda n: (n - 3) * 10**17,
}


@pytest.mark.parametrize("kind", ["images", "categories", "annotations"])
@pytest.mark.parametrize("name", list(IDS))
def test_ap_does_not_depend_on_ids(kind: str, name: str) -> None:
    """pycocotools marks a detection without a match by 0, the id that an object may have."""
    truth = toy_truth(2)
    found = noisy_detections(truth, 2)
    for item in truth["annotations"]:  # each object found once for certain
        exact = {"image_id": item["image_id"], "category_id": item["category_id"], "bbox": item["bbox"], "score": 1.0}
        found["bbox"].append(exact)
        found["segm"].append({**exact, "segmentation": encoded(*item["bbox"])})
    new = {item["id"]: IDS[name](place) for place, item in enumerate(truth[kind])}
    field = {"images": "image_id", "categories": "category_id"}.get(kind)

    def changed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**item, field: new[item[field]]} for item in items] if field else items

    other = {**truth, "annotations": changed(truth["annotations"])}
    other[kind] = [{**item, "id": new[item["id"]]} for item in other[kind]]
    expected, rows = coco_rows(truth, found), coco_rows(other, {key: changed(items) for key, items in found.items()})
    for overlap in ("bbox", "segm"):
        np.testing.assert_equal(coco_summary(rows, overlap), coco_summary(expected, overlap))
    ids = {key: {item["id"] for item in other[key]} for key in ("images", "categories")}
    assert set(rows["image_id"]) == ids["images"] and set(rows["category_id"]) <= ids["categories"]


def test_the_only_object_may_have_id_0_and_no_mark_of_a_crowd() -> None:
    shape = rectangle(10, 10, 50, 50)
    truth = {
        "images": [{"id": 0, "width": SIDE, "height": SIDE}],
        "categories": [{"id": 0, "name": "a"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, **shape}],
    }
    found = [{"image_id": 0, "category_id": 0, "bbox": shape["bbox"], "score": 1.0}]
    masks = [{**found[0], "segmentation": encoded(10, 10, 50, 50)}]
    rows = coco_rows(truth, {"bbox": found, "segm": masks})
    assert [coco_summary(rows, kind)["AP"] for kind in ("bbox", "segm")] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert "iscrowd" not in truth["annotations"][0]  # the dictionary of the run is left as it is


def test_perfect_detections_give_ap_1_and_none_give_0() -> None:
    """Perfect detections give AP 1, none give AP 0 without a crash, and the empty image is still counted."""
    truth = toy_truth(7)
    truth["annotations"] = [a for a in truth["annotations"] if not a["iscrowd"]]
    perfect = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1.0}
        for a in truth["annotations"]
    ]
    masks = [{**item, "segmentation": encoded(*item["bbox"])} for item in perfect]
    rows = coco_rows(truth, {"bbox": perfect, "segm": masks})
    assert coco_summary(rows, "bbox")["AP"] == pytest.approx(1.0, abs=1e-9)
    assert coco_summary(rows, "segm")["AP"] == pytest.approx(1.0, abs=1e-9)
    nothing = coco_rows(truth, {"bbox": [], "segm": []})
    for kind in ("bbox", "segm"):
        assert coco_summary(nothing, kind)["AP"] == 0.0
        assert arrange_coco(nothing, kind).n_images == len(truth["images"])


def test_miou_of_a_case_counted_by_hand() -> None:
    """Equal pictures give mIoU 1; a hand-counted case gives its numbers; absent classes are left out."""
    rows = pd.DataFrame({
        "stem": ["a", "a", "a", "b", "b", "b"], "class_index": [0, 1, 2] * 2, "intersection": [4, 0, 0, 2, 3, 0],
        "union": [8, 2, 0, 4, 6, 0], "predicted": [6, 2, 0, 3, 5, 0], "labelled": [6, 0, 0, 3, 4, 0],
    })  # fmt: skip
    found = ade_summary(arrange_ade(rows))
    assert found["mIoU"] == pytest.approx((6 / 12 + 3 / 8) / 2)
    assert found["aAcc"] == pytest.approx(9 / 13)
    assert found["mAcc"] == pytest.approx((6 / 9 + 3 / 4) / 2)
    same = rows.assign(intersection=rows["labelled"], union=rows["labelled"])
    assert ade_summary(arrange_ade(same))["mIoU"] == 1.0


def test_perception_weights_are_repeats() -> None:
    """Counting images by weight equals repeating their rows under new ids; zero weight removes them."""
    truth, found = toy_truth(3), noisy_detections(toy_truth(3), 3)
    for number, items in enumerate(found.values()):
        for index, item in enumerate(items):
            item["score"] = (index * 37 + number) % 1009 / 1009  # no ties: their order is not defined by weights
    rows = coco_rows(truth, found)
    weights = np.array([2, 0, 1, 1, 3, 0, 1, 1, 2, 1, 0, 1], dtype=np.float64)
    images = sorted(set(rows["image_id"]))
    copies = []
    for image, weight in zip(images, weights, strict=True):
        part = rows[rows["image_id"] == image]
        copies += [part.assign(image_id=image * 100 + copy) for copy in range(int(weight))]
    expected = precision_summary(arrange_coco(pd.concat(copies), "bbox").precision())
    weighted = precision_summary(arrange_coco(rows, "bbox").precision(weights))
    assert weighted == pytest.approx(expected, abs=1e-9)


def test_perception_scores_have_intervals() -> None:
    """Scores carry n, an ordered interval around the value, fraction suffixes, and a reason where undefined."""
    truth = toy_truth(1)
    rows = coco_rows(truth, noisy_detections(truth, 1))
    item = stages.Item("coco@0.1", ("coco",), {"fraction": 0.1})
    score = stages.coco_score(rows, item, replicates=40)
    named = {metric.name: metric for metric in score.metrics}
    best = named["COCO_AP_box@0.1"]
    assert best.role == "primary" and named["COCO_AP50_box@0.1"].role == "companion"
    assert best.estimate.n == 12 and best.estimate.low is not None and best.estimate.high is not None
    assert best.estimate.low < float(best.estimate.value or 0) < best.estimate.high
    small = rows[rows["area"] != "small"]
    gone = {m.name: m for m in stages.coco_score(small, item, replicates=5).metrics}["COCO_AP_S_box@0.1"]
    assert gone.estimate.value is None and "size" in gone.estimate.reason
    again = stages.coco_score(rows.sample(frac=1, random_state=0), item, replicates=40)
    assert again == score


def test_perception_ade_scores_have_intervals() -> None:
    """mIoU is primary, with an ordered interval over images; each left out in turn."""
    rng = np.random.default_rng(0)
    union = rng.integers(50, 90, (30, 4))
    hit = (union * rng.uniform(0.3, 0.9, union.shape)).astype(int)
    rows = pd.DataFrame({
        "stem": np.repeat([f"v{i:02d}" for i in range(30)], 4), "class_index": np.tile(np.arange(4), 30),
        "intersection": hit.ravel(), "union": union.ravel(), "predicted": union.ravel(), "labelled": union.ravel(),
    })  # fmt: skip
    item = stages.Item("ade20k@0.1", ("ade20k",), {"fraction": 0.1})
    score = stages.ade_score(rows, item, AdeSettings().replicates)
    named = {metric.name: metric for metric in score.metrics}
    best = named["ADE20K_mIoU@0.1"]
    assert best.role == "primary" and named["ADE20K_aAcc@0.1"].role == "companion"
    assert best.estimate.value == pytest.approx(float((hit.sum(0) / union.sum(0)).mean()), abs=1e-12)
    assert best.estimate.low is not None and best.estimate.high is not None and best.estimate.n == 30
    assert 0 < best.estimate.value - best.estimate.low < 0.1 and 0 < best.estimate.high - best.estimate.value < 0.1
    assert best.estimate.method == "jackknife (image)"


def test_perception_jackknife_of_a_mean() -> None:
    """The interval of a mean is that of theory, whatever the order of the images; groups of images give about the same."""
    values = np.random.default_rng(0).uniform(0.2, 0.8, 400)
    names = [f"image {i}" for i in range(400)]

    def mean(weights: Any, chosen: Any = values) -> dict[str, float]:
        return {"mean": float(weights @ chosen / weights.sum())}

    low, high = jackknife(mean, names, 1000)["mean"]
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=1e-3)
    assert high - low == pytest.approx(2 * 1.966 * values.std(ddof=1) / 20, rel=1e-2)
    nothing = jackknife(lambda w: {"mean": 0.0}, names, 40)["mean"]
    assert nothing == (0.0, 0.0)
    order = np.random.default_rng(1).permutation(400)
    turned = jackknife(lambda w: mean(w, values[order]), [names[i] for i in order], 1000)["mean"]
    assert turned == pytest.approx((low, high), abs=1e-12)
    grouped = jackknife(mean, names, 40)["mean"]
    assert grouped[1] - grouped[0] == pytest.approx(high - low, rel=0.35)


def test_jackknife_of_three_images_is_the_standard_error_of_their_mean_on_the_logit_scale() -> None:
    """0.2, 0.4, 0.6: standard error sqrt(0.04 / 3), t(2) = 4.302653; the slope of the logit is 1 / (0.4 * 0.6)."""
    values = np.array([0.2, 0.4, 0.6])
    low, high = jackknife(lambda w: {"mean": float(w @ values / w.sum())}, ["a", "b", "c"], 1000)["mean"]
    reach = 4.302653 * np.sqrt(0.04 / 3) / (0.4 * 0.6)
    assert (low, high) == pytest.approx((expit(logit(0.4) - reach), expit(logit(0.4) + reach)), rel=1e-6)


def test_intervals_at_the_ends_of_the_scale_are_cut_there() -> None:
    """At 0 and 1 there is no logit: 1 -+ half; and one image has no interval at all."""

    def ends(values: Any, most: int = 1000) -> tuple[float, float]:
        chosen = iter(np.asarray(values, dtype=np.float64))  # the whole last: the others are left out in turn
        names = [f"image {i}" for i in range(len(values) - 1)]
        return jackknife(lambda w: {"x": float(next(chosen))}, names, most)["x"]

    half = 4.302653 * np.sqrt(2 / 3 * 2 * 0.05**2)
    assert ends([0.9, 1.0, 0.95, 1.0]) == pytest.approx((1 - 4.302653 * np.sqrt(2 / 3 * 0.005), 1.0), rel=1e-6)
    assert ends([0.0, 0.05, 0.1, 0.0]) == pytest.approx((0.0, half), rel=1e-6)
    assert np.isnan(ends([0.5, 0.5])).all()
    assert ends([0.0, 1.0, 0.5, 1e-6])[0] < 1e-300, "no overflow where half is a million times the value"


def test_groups_of_images_follow_from_names_alone() -> None:
    names = [f"image {i}" for i in range(50)]
    labels, found = left_out(lambda w: {"kept": float(w.sum())}, names, 7)
    assert set(labels) <= {f"group {i}" for i in range(7)} and len(labels) == len(found["kept"])
    assert (50 - found["kept"]).sum() == 50 and found["kept"].max() < 50
    again, other = left_out(lambda w: {"kept": float(w.sum())}, names[::-1], 7)
    assert again == labels and (other["kept"] == found["kept"]).all()
    each, single = left_out(lambda w: {"kept": float(w.sum())}, names, 50)
    assert sorted(each) == sorted(names) and (single["kept"] == 49).all(), "as many as allowed: each by itself"


def test_precision_of_a_case_counted_by_hand() -> None:
    """Two objects; hits at ranks 1 and 3 of three detections: precision 1 up to recall 1/2, then 2/3."""
    rows = pd.DataFrame([
        {"image_id": 1, "category_id": 1, "iou_type": "bbox", "area": "all", "n_gt": 1, "scores": [0.9, 0.2], "matches": [1023, 0],
         "ignored": [0, 0]},
        {"image_id": 2, "category_id": 1, "iou_type": "bbox", "area": "all", "n_gt": 1, "scores": [0.5, 0.3], "matches": [0, 1],
         "ignored": [0, 0]},
        {"image_id": 2, "category_id": 2, "iou_type": "bbox", "area": "all", "n_gt": 0, "scores": [0.7], "matches": [0],
         "ignored": [0]},
        {"image_id": 2, "category_id": 3, "iou_type": "bbox", "area": "all", "n_gt": 2, "scores": [], "matches": [], "ignored": []},
    ])  # fmt: skip
    arranged = arrange_coco(rows, "bbox")
    found = arranged.precision()
    assert found.shape == (10, 101, 3) and np.isnan(found[:, :, 1]).all() and (found[:, :, 2] == 0).all()
    assert found[0, :51, 0] == pytest.approx(1.0) and found[0, 51:, 0] == pytest.approx(2 / 3)
    assert found[1, :51, 0] == pytest.approx(1.0) and (found[1, 51:, 0] == 0).all(), (
        "the second hit is one at IoU 0.5 alone"
    )
    half, full = 51 / 101, (51 + 50 * 2 / 3) / 101
    expected = {"AP": (full + 9 * half) / 10 / 2, "AP50": full / 2, "AP75": half / 2}
    assert arranged.summary() == pytest.approx(expected)
    alone = arranged.summary(np.array([1.0, 0.0]))
    assert alone["AP50"] == pytest.approx(1.0), "without image 2 only the first object is left, and no category 3"
    assert np.isnan(list(arranged.summary(np.zeros(2)).values())).all()


def test_ade_numbers_without_labelled_pixels_are_undefined() -> None:
    rows = pd.DataFrame(
        {"stem": ["a", "b"], "class_index": [0, 0], "intersection": [1, 0], "union": [2, 0], "labelled": [1, 0]}
    )
    arranged = arrange_ade(rows)
    assert ade_summary(arranged) == {"mIoU": 0.5, "aAcc": 1.0, "mAcc": 1.0}
    assert np.isnan(list(ade_summary(arranged, np.array([0.0, 1.0])).values())).all()
