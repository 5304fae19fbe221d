"""Calibration error and selective accuracy: hand-computed cases, invariance, and what a restricted or old set of rows says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from harness.api import Item
from suites.in_domain import SECONDARY, InDomain, InDomainSettings
from suites.transfer.confidence import accuracy_at, area_under_risk_coverage, calibration_error, overconfidence

ITEM = Item("in-domain", ("in-val",))


def test_the_debiased_error_of_one_bin_by_hand() -> None:
    """40 images of confidence 0.9, 30 right: one bin; difference 0.15, variance 40 / 39 * 3 / 16, of the mean that over 40."""
    confidence, correct = np.full(40, 0.9), np.repeat([1, 0], [30, 10])
    found = calibration_error(confidence, correct)
    assert found.value == pytest.approx((0.15**2 - 0.75 * 0.25 / 39) ** 0.5) and found.n == 40
    gaps = confidence - correct
    pairs = (gaps.sum() ** 2 - (gaps**2).sum()) / (40 * 39)  # mean product of two different images
    assert found.value == pytest.approx(pairs**0.5)
    assert found.low is not None and found.high is not None and found.low <= found.value < found.high


def test_two_bins_weigh_as_their_images() -> None:
    """Bins of 20 at 0.6 and 0.8: mean products of two images by hand, averaged, then the root."""
    low, high = np.repeat([1, 0], [6, 14]), np.repeat([1, 0], [10, 10])
    found = calibration_error(np.repeat([0.6, 0.8], 20), np.r_[low, high])
    products = []
    for confidence, right in ((0.6, low), (0.8, high)):
        gaps = confidence - right
        products.append((gaps.sum() ** 2 - (gaps**2).sum()) / (20 * 19))
    assert found.value == pytest.approx(np.mean(products) ** 0.5) and "2 bins" in found.method


def test_a_calibrated_network_has_no_error_on_average_where_the_plain_estimate_has_one() -> None:
    rng, debiased, plain = np.random.default_rng(0), [], []
    for _ in range(60):
        p = rng.uniform(0.3, 1, 600)
        right = rng.random(600) < p
        found = calibration_error(p, right)
        debiased.append(found.value)
        assert found.low == 0.0 or found.low < 0.06
        bins = np.array_split(np.argsort(p), 15)
        plain.append(np.sqrt(np.mean([(p[b].mean() - right[b].mean()) ** 2 for b in bins])))
    assert np.mean(np.square(debiased)) < 0.3 * np.mean(np.square(plain))


def test_too_few_images_have_no_calibration_error() -> None:
    found = calibration_error(np.full(39, 0.5), np.ones(39))
    assert found.value is None and found.reason == "fewer than 40 test images"


def test_overconfidence_is_signed() -> None:
    found = overconfidence([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert found.value == pytest.approx(0.25) and found.method == "Student's t"
    assert overconfidence([0.5, 0.4, 0.5], [1, 1, 1]).value == pytest.approx(-1.6 / 3)


def test_the_area_under_the_risk_coverage_curve_by_hand() -> None:
    """Right, wrong, right, wrong by falling confidence: risks 0, 1/2, 1/3, 1/2."""
    found = area_under_risk_coverage([0.6, 0.9, 0.7, 0.8], [0, 1, 1, 0])
    assert found.estimate.value == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found.pseudo.mean() == pytest.approx(found.estimate.value)


def test_images_of_one_confidence_are_answered_together() -> None:
    assert area_under_risk_coverage(np.full(10, 0.5), np.repeat([1, 0], 5)).estimate.value == pytest.approx(0.5)
    assert accuracy_at(np.full(10, 0.5), np.repeat([1, 0], 5)).estimate.n == 10


def test_the_accuracy_of_the_most_confident_four_fifths_by_hand() -> None:
    confidence, right = np.linspace(0.1, 1, 10), np.asarray([0, 0, 1, 0, 1, 1, 1, 1, 1, 1])
    found = accuracy_at(confidence, right)
    assert found.estimate.value == pytest.approx(7 / 8) and found.estimate.n == 8
    assert found.pseudo.mean() == pytest.approx(7 / 8)
    perfect = accuracy_at(confidence, np.ones(10)).estimate
    assert perfect.value == 1 and perfect.low is not None and perfect.low < 1 and perfect.method == "wilson"


def test_pseudo_values_are_what_leaving_an_image_out_says() -> None:
    """The infinitesimal jackknife against the jackknife itself: n AURC - (n - 1) AURC without the image."""
    rng = np.random.default_rng(3)
    c, right = rng.random(400), rng.random(400) < 0.8
    whole = area_under_risk_coverage(c, right)
    left = [area_under_risk_coverage(np.delete(c, i), np.delete(right, i)).estimate.value for i in range(400)]
    assert whole.estimate.value is not None
    jackknife = 400 * whole.estimate.value - 399 * np.asarray(left, dtype=float)
    assert np.corrcoef(jackknife, whole.pseudo)[0, 1] > 0.999
    assert whole.pseudo.std() == pytest.approx(jackknife.std(), rel=0.02)


@pytest.mark.parametrize("measure", [calibration_error, overconfidence, area_under_risk_coverage, accuracy_at])
def test_the_order_of_images_does_not_count(measure) -> None:
    rng = np.random.default_rng(1)
    c, right = rng.integers(1, 20, 300) / 20, rng.random(300) < 0.7
    order = rng.permutation(300)
    first, second = measure(c, right), measure(c[order], right[order])
    first, second = (getattr(found, "estimate", found) for found in (first, second))
    assert (first.value, first.low, first.high) == pytest.approx((second.value, second.low, second.high))


def frame(**columns: object) -> pd.DataFrame:
    n = 60
    rng = np.random.default_rng(0)
    rows = {"item": [f"i{i}" for i in range(n)], "label": np.arange(n) % 3, "predicted": np.arange(n) % 3, "state": "ok",
            "outputs": 3, "head": 3, "outside": 0, "confidence": rng.uniform(0.4, 1, n)}  # fmt: skip
    found = pd.DataFrame(rows | columns)
    found.loc[::5, "predicted"] = (found.loc[::5, "label"] + 1) % 3
    return found


def test_in_domain_gives_them_beside_an_unchanged_accuracy() -> None:
    suite, rows = InDomain(), frame()
    old = suite.score(rows.drop(columns="confidence"), ITEM, InDomainSettings(), {})
    new = suite.score(rows, ITEM, InDomainSettings(), {})
    assert new.metrics[:2] == old.metrics[:2] and new.metrics[0].estimate.value == pytest.approx(0.8)
    assert {m.name: m.better for m in new.metrics[2:]} == dict(SECONDARY) and {m.role for m in new.metrics[2:]} == {
        "secondary"
    }
    assert all(m.estimate.value is not None for m in new.metrics)
    for metric in old.metrics[2:]:
        assert metric.estimate.value is None and "run the suite again" in metric.estimate.reason
    assert {m.name for m in new.metrics} == set(InDomain.card.metrics)
    names = [m.name for m in new.metrics]
    units = {one.metric: one.value() for one in suite.units(rows, ITEM, InDomainSettings(), {}, names)}
    assert set(units) == {"top1", "overconfidence", "aurc", "accuracy_at_80"}
    assert all(units[m.name] == pytest.approx(m.estimate.value) for m in new.metrics if m.name in units)
    assert [u.metric for u in suite.units(rows.drop(columns="confidence"), ITEM, InDomainSettings(), {}, names)] == [
        "top1"
    ]


def test_a_restricted_head_names_its_coverage() -> None:
    found = InDomain().score(frame(head=10), ITEM, InDomainSettings(), {})
    assert [m.name for m in found.metrics] == ["top1@3of10", "mean_per_class", *(f"{name}@3of10" for name in SECONDARY)]


def test_the_confidence_is_the_softmax_of_the_prediction_among_the_classes_of_the_images(tmp_path) -> None:
    from PIL import Image

    from suites.transfer.stages import classify
    from suites.transfer.transforms import eval_transform

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    logits = torch.tensor([[2.0, 9.0, 1.0, 0.0]])
    rows = classify(lambda images: logits, tmp_path, ["a.png"], np.zeros(1, dtype=np.int64), eval_transform(32), [0, 2, 3],
                    batch_size=1, workers=1, progress=lambda *_: None, name="in-val")  # fmt: skip
    e = np.exp([2.0, 1.0, 0.0])
    assert rows["predicted"].tolist() == [0] and rows["confidence"].tolist() == pytest.approx(
        [e[0] / e.sum()], abs=1e-15
    )
