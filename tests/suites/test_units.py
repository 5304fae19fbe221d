"""Units of every suite stand for the very number in the record, restricted heads included."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.plugins.suite import Item
from suites.bias.units import background_units, context_units, texture_units


def test_texture_units_give_ti_of_the_conflict_images() -> None:
    rows = {"image": ["a", "b", "c", "d", "e"], "shape": ["x"] * 5, "texture": ["y", "y", "y", "y", "x"]}
    rows["answer"] = ["y", "x", "y", "n", "x"]
    one = texture_units({name: np.asarray(column) for name, column in rows.items()}, "TI@7of16")
    assert one.ids == ("a", "b", "c", "d") and one.value() == pytest.approx(2 / 3) and one.metric == "TI@7of16"


def _context(right: list[list[int]]) -> dict[str, np.ndarray]:
    k = np.repeat(np.arange(len(right)), [len(part) for part in right])
    flags = {f"uncommon_{name}": k > i for i, name in enumerate(("time", "weather", "location"))}
    return {"image": np.array([f"{i}" for i in range(len(k))]), "correct": np.concatenate(right), **flags}


def test_context_units_give_cb_avg_and_its_parts() -> None:
    rows = _context([[1] * 80 + [0] * 20, [1] * 60 + [0] * 40, [1] * 10 + [0] * 10, [1] * 2 + [0] * 3])
    assert context_units(rows, "CB_avg").value() == pytest.approx((0.75 + 0.625 + 0.5) / 3)
    one = context_units(rows, "CB_1@5of10")
    assert (
        one.value() == pytest.approx(0.75)
        and one.ids == tuple(str(i) for i in range(200))
        and one.metric == "CB_1@5of10"
    )
    assert one.strata.tolist() == [0] * 100 + [1] * 100


def test_background_units_keep_both_views_of_a_foreground() -> None:
    keys, labels = ["p", "q", "r", "s"], [1, 0, 1, 0]
    rows = {"variation": ["mixed_same"] * 4 + ["mixed_rand"] * 4 + ["original"], "foreground": [*keys, *reversed(keys), "p"],
            "label": [*labels, *reversed(labels), 1], "correct": [1, 1, 1, 0, 0, 1, 0, 0, 1]}  # fmt: skip
    one = background_units({name: np.asarray(column) for name, column in rows.items()}, "BG_Gap")
    # q: right on both; p: right on the same background only; r: mixed_rand order s, r, q, p is 0, 1, 0, 0
    assert one.value() == pytest.approx(100 * (3 / 4 - 1 / 4)) and sorted(one.ids) == keys
    gaps = dict(zip(one.ids, one.features[:, 0].tolist(), strict=True))
    assert gaps == {"p": 1.0, "q": 1.0, "r": 0.0, "s": 0.0}
    assert dict(zip(one.ids, one.strata.tolist(), strict=True)) == dict(zip(keys, labels, strict=True))


def test_perception_units_stand_for_ap_and_miou() -> None:
    from suites.perception.metrics import ade_summary, arrange_ade, arrange_coco
    from suites.perception.units import GROUPS, ade_units, coco_units

    rng = np.random.default_rng(0)
    union = rng.integers(20, 90, (30, 4))
    ade = pd.DataFrame({"stem": np.repeat([f"v{i:02d}" for i in range(30)], 4), "class_index": np.tile(np.arange(4), 30),
                        "intersection": (union * 0.6).astype(int).ravel(), "union": union.ravel(), "labelled": union.ravel()})  # fmt: skip
    pixels = ade_units(ade, "m")
    assert pixels.metric == "m" and pixels.value() == pytest.approx(ade_summary(arrange_ade(ade))["mIoU"])
    for images in (20, GROUPS + 50):
        rows = [{"image_id": i, "category_id": 1, "iou_type": "bbox", "area": "all", "n_gt": 1, "scores": [float(rng.random())],
                 "matches": [int(rng.integers(0, 1024))], "ignored": [0]} for i in range(images)]  # fmt: skip
        one = coco_units(pd.DataFrame(rows), "bbox", "m")
        assert one.value() == pytest.approx(arrange_coco(pd.DataFrame(rows), "bbox").summary()["AP"])
        assert len(one.ids) == min(images, GROUPS) or images > GROUPS > len(one.ids) > GROUPS / 2


def test_ap_units_are_tukeys_pseudo_values_shifted_to_ap() -> None:
    """n AP - (n - 1) AP without the image, whose mean is then AP itself."""
    from suites.perception.metrics import arrange_coco
    from suites.perception.units import coco_units

    rng = np.random.default_rng(1)
    rows = pd.DataFrame([
        {"image_id": i, "category_id": 1, "iou_type": "bbox", "area": "all", "n_gt": 1, "scores": [float(rng.random())],
         "matches": [int(rng.integers(0, 1024))], "ignored": [0]} for i in range(6)
    ])  # fmt: skip
    arranged = arrange_coco(rows, "bbox")
    whole = arranged.summary()["AP"]
    pseudo = np.array([6 * whole - 5 * arranged.summary((np.arange(6) != i).astype(float))["AP"] for i in range(6)])
    one = coco_units(rows, "bbox", "m")
    assert one.ids == tuple("012345") and (one.metric, one.statistic, one.scale) == ("m", "share", 1.0)
    np.testing.assert_allclose(one.features[:, 0], pseudo + whole - pseudo.mean())
    assert (one.features[:, 1] == 1).all() and (one.strata == 0).all()


@pytest.mark.parametrize("module", ["texture_bias:TextureBias", "in_domain:InDomain", "coco:Coco", "ade20k:ADE20K"])
def test_a_suite_gives_units_only_for_what_it_is_asked(module: str) -> None:
    from harness.core.code import load_attribute

    suite = load_attribute(f"suites.{module}")()
    assert suite.units(pd.DataFrame({"label": [1], "predicted": [1], "item": ["a"]}), Item("x", ()), None, {}, []) == ()
