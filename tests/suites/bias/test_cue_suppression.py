"""Cue suppression: pictures with a cue taken out, curves by hand, and the suite on colour patches whose answers are known."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from harness.api import Item, UserError
from harness.core.settings import parse_settings
from suites import cue_suppression
from suites.bias.cues import checks, curve_metrics, curve_units, curves, kept, score
from suites.bias.suppression import CUES, blur, remove_colour, shuffle_patches
from suites.cue_suppression import CueSuppression, SuppressionSettings
from tests.suites.bias.conftest import ColourClassifier
from tests.tiny_roots import save_image

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
ITEM = Item("cue-suppression", ("in-val",))
LEVELS = {"colour": [1.0], "texture": [4], "texture_nlm": [10], "global_shape": [2, 4], "local_detail": [5]}
ORDER = [15, 2, 5, 4, 6, 9, 8, 1, 3, 10, 12, 0, 11, 7, 14, 13]
"""Tiles of the picture 'a' on a grid of 4 x 4; networks measured years apart must see the same shuffles."""
FAINT = np.random.default_rng(0).integers(110, 131, (32, 32, 3), dtype=np.uint8)


def test_grey_by_hand() -> None:
    """Pure red: 0.299 * 255 = 76.2; half of it: (255 + 76) / 2 and 76 / 2."""
    red = np.full((2, 2, 3), (255, 0, 0), dtype=np.uint8)
    assert remove_colour(red, 1.0, "")[0, 0].tolist() == [76, 76, 76]
    assert remove_colour(red, 0.5, "")[0, 0].tolist() == [166, 38, 38]


def test_blur_by_hand() -> None:
    """A kernel of 3 has sigma 1/3: weights 1 and exp(-4.5) = 0.0111, so the centre keeps (1 / 1.0222)^2 of a dot."""
    dot = np.zeros((7, 7, 3), dtype=np.uint8)
    dot[3, 3] = 250
    assert int(blur(dot, 3, "")[3, 3, 0]) == pytest.approx(250 / 1.0222**2, abs=1.5)
    assert int(blur(dot, 3, "")[3, 4, 0]) == pytest.approx(250 * 0.0111 / 1.0222**2, abs=1.5)


def test_shuffled_tiles_are_the_same_tiles_and_what_is_left_over_stays() -> None:
    picture = np.arange(7 * 7 * 3, dtype=np.uint8).reshape(7, 7, 3)
    found = shuffle_patches(picture, 3, "some name")
    tiles = [{p[y : y + 2, x : x + 2].tobytes() for y in (0, 2, 4) for x in (0, 2, 4)} for p in (picture, found)]
    assert tiles[0] == tiles[1] and len(tiles[0]) == 9
    assert (found[6] == picture[6]).all() and (found[:, 6] == picture[:, 6]).all() and (found != picture).any()


def test_a_shuffle_follows_from_name_and_grid_alone() -> None:
    picture = np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4)[..., None], 3, axis=2)
    orders = {name: shuffle_patches(picture, 4, name)[..., 0].ravel().tolist() for name in ("a", "b")}
    assert orders["a"] == shuffle_patches(picture, 4, "a")[..., 0].ravel().tolist() != orders["b"]
    assert orders["a"] == ORDER


@pytest.mark.parametrize("name", CUES)
def test_the_identity_changes_no_pixel_and_every_level_does(name: str) -> None:
    cue = CUES[name]
    assert (cue.suppress(FAINT, cue.identity, "x") == FAINT).all()
    assert all((cue.suppress(FAINT, level, "x") != FAINT).any() for level in cue.levels)
    assert SuppressionSettings().levels()[name] == tuple(map(float, cue.levels)), (
        "the defaults are the published levels"
    )


@pytest.mark.parametrize("name", ["texture", "texture_nlm", "local_detail"])
def test_filters_leave_flat_surfaces_and_smooth_more_from_level_to_level(name: str) -> None:
    cue, flat = CUES[name], np.full((32, 32, 3), (90, 120, 30), dtype=np.uint8)
    spread = [float(cue.suppress(FAINT, level, "x").std()) for level in (cue.identity, *cue.levels)]
    assert all((cue.suppress(flat, level, "x") == flat).all() for level in cue.levels)
    assert spread == sorted(spread, reverse=True) and spread[-1] < 0.6 * spread[0]


def test_a_bilateral_filter_keeps_the_edge_that_a_blur_of_its_width_does_not() -> None:
    edge = np.zeros((32, 32, 3), dtype=np.uint8)
    edge[:, 16:] = 250
    kept_edge = [
        int(p[16, 16, 0]) - int(p[16, 15, 0]) for p in (CUES["texture"].suppress(edge, 4, ""), blur(edge, 15, ""))
    ]
    assert kept_edge[0] > 240 and kept_edge[1] < 60


def hand_rows() -> pd.DataFrame:
    """Four images, three of them recognised plain; of these two at grid 2 and one at grid 4, which also finds the fourth."""
    plain = [1, 1, 1, 0]
    answers = {1.0: plain, 2.0: [1, 0, 1, 0], 4.0: [0, 0, 1, 1]}
    return pd.DataFrame(
        [{"item": f"i{i}", "cue": "global_shape", "level": level, "label": 0, "predicted": 1 - right[i],
          "correct": bool(right[i]), "plain": bool(plain[i])} for level, right in answers.items() for i in range(4)]
    )  # fmt: skip


def test_the_curve_by_hand() -> None:
    found = {metric.name: metric for metric in score(hand_rows(), 4, "").metrics}
    assert found["accuracy"].estimate.value == 0.75
    assert found["without_global_shape_2"].estimate.value == pytest.approx(2 / 3)
    assert found["without_global_shape_4"].estimate.value == pytest.approx(2 / 3)
    mean = found["without_global_shape"]
    assert mean.estimate.value == pytest.approx((2 + 2) / 2 / 3) and mean.estimate.n == 4
    assert (mean.role, mean.better, mean.beside) == ("secondary", "neither", ("accuracy",))


def test_the_interval_is_that_of_pairs() -> None:
    """Of 400 images 300 are recognised plain, and 240 of these suppressed: se of the share sqrt(0.8 * 0.2 / 300) = 0.0231."""
    plain = np.repeat([1.0, 1.0, 0.0], [240, 60, 100])
    found = kept(np.repeat([1.0, 0.0, 0.0], [240, 60, 100]), plain)
    assert found.value == pytest.approx(0.8)
    assert found.high is not None and found.low is not None
    assert (found.high - found.low) / 3.92 == pytest.approx(0.0231, abs=0.001)


def test_a_network_that_recognises_nothing_keeps_nothing_that_can_be_told() -> None:
    found = kept(np.zeros(5), np.zeros(5))
    assert found.value is None and found.reason == "no plain image is recognised"


def test_neither_the_order_of_rows_nor_an_incomplete_set_goes_unseen() -> None:
    rows = hand_rows()
    shuffled = rows.sample(frac=1, random_state=1).reset_index(drop=True)
    assert score(rows, 4, "") == score(shuffled, 4, "")
    assert all((a.features == b.features).all() and a.ids == b.ids
               for a, b in zip(curve_units(rows, ["without_global_shape"]), curve_units(shuffled, ["without_global_shape"]),
                               strict=True))  # fmt: skip
    with pytest.raises(ValueError, match="every image at every level"):
        score(rows.iloc[1:], 4, "")


def test_units_are_those_of_the_metric_and_of_no_other() -> None:
    rows = hand_rows()
    (units,) = curve_units(rows, ["without_global_shape", "accuracy", "without_colour"])
    assert units.metric == "without_global_shape" and units.value() == pytest.approx(2 / 3)


@pytest.mark.parametrize(("classes", "floor"), [(2, 0.625), (12, 1 / 12 + 0.25 * 11 / 12), (100, 0.05), (1000, 0.005)])
def test_plain_accuracy_must_be_well_above_chance(classes: int, floor: float) -> None:
    first, _ = checks(curves(hand_rows()), classes)
    assert first.threshold == pytest.approx(floor) and first.passed == (floor <= 0.75)
    assert f"here {100 / classes:.3g} %" in first.meaning


def test_an_answer_that_changes_though_nothing_is_taken_out_fails_the_check() -> None:
    rows = hand_rows()
    assert [check.passed for check in checks(curves(rows), 4)] == [True, True]
    rows.loc[0, "correct"] = False
    identity = checks(curves(rows), 4)[1]
    assert not identity.passed and identity.value == 0.25


def test_every_cue_has_its_metrics_in_one_order() -> None:
    parts = [hand_rows().assign(cue=cue, level=hand_rows()["level"].map({1.0: CUES[cue].identity, 2.0: 20.0, 4.0: 30.0}))
             for cue in reversed(CUES)]  # fmt: skip
    names = [metric.name for metric in curve_metrics(curves(pd.concat(parts)), "@3of9")]
    assert names[:6] == [*(f"without_{cue}@3of9" for cue in CUES), "accuracy@3of9"] and len(names) == 6 + 10


class Context:
    """What the suite uses of a context."""

    def __init__(self, root, classes="", **settings) -> None:
        self.classes = classes
        self.root, self.values, self.calls = root, {"image_size": 32, **LEVELS, **settings}, 0
        self.sources = {"in-val": SimpleNamespace(data_hash=str(root))}

    def data(self, name):
        return self.root

    def card(self, name):
        return {"per_class": 3, "classes": self.classes}

    def settings(self, model):
        return parse_settings(model, self.values, "cue-suppression")

    def progress(self, done, total, note):
        self.calls += 1


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Three noisy patches of each colour, in class folders."""
    root = tmp_path_factory.mktemp("patches")
    for place, (name, colour) in enumerate(COLOURS.items()):
        for number in range(3):
            save_image(
                root / name / f"ILSVRC2012_val_{3 * place + number:08d}.JPEG", colour, (40, 40), noise=1 + number
            )
    return root


def measure(monkeypatch, root, model=None, **settings):
    monkeypatch.setattr(cue_suppression, "classifier", lambda ctx: model or ColourClassifier(COLOURS))
    context = Context(root, **settings)
    return CueSuppression().rows(context), context


def test_a_network_that_reads_colour_loses_all_but_chance_in_grey_and_nothing_else(patches, monkeypatch) -> None:
    rows, context = measure(monkeypatch, patches)
    suite, settings = CueSuppression(), context.settings(SuppressionSettings)
    assert len(rows) == 9 * (6 + 5) and context.calls == 1
    found = suite.score(rows, ITEM, settings, {})
    values = {metric.name: metric.estimate.value for metric in found.metrics}
    assert values["accuracy"] == 1 and all(check.passed for check in found.checks)
    assert values["without_colour"] == pytest.approx(1 / 3)
    assert all(values[f"without_{cue}"] == 1 for cue in CUES if cue != "colour")
    assert set(suite.columns) <= set(rows) and not rows.duplicated(list(suite.row_key)).any()


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 4}, {"threads": 3}])
def test_batches_and_threads_leave_no_trace_in_the_rows(patches, monkeypatch, settings) -> None:
    whole, other = measure(monkeypatch, patches)[0], measure(monkeypatch, patches, **settings)[0]
    pd.testing.assert_frame_equal(whole, other)


def test_pictures_that_are_not_kept_give_the_same_rows(patches, monkeypatch) -> None:
    kept_rows = measure(monkeypatch, patches)[0]
    monkeypatch.setattr(cue_suppression, "_PICTURES_KEPT", 0)
    pd.testing.assert_frame_equal(kept_rows, measure(monkeypatch, patches)[0])


def test_pictures_are_made_once_for_all_networks_of_a_worker(patches, monkeypatch) -> None:
    measure(monkeypatch, patches)
    monkeypatch.setitem(CUES, "colour", SimpleNamespace(identity=0.0, suppress=None))
    assert len(measure(monkeypatch, patches)[0]) == 99


def test_a_constant_network_keeps_everything_and_is_not_valid(patches, monkeypatch) -> None:
    rows, context = measure(monkeypatch, patches, ColourClassifier(COLOURS, gain=0))
    found = CueSuppression().score(rows, ITEM, context.settings(SuppressionSettings), {})
    assert {metric.estimate.value for metric in found.metrics if metric.role == "secondary"} == {1.0}
    assert not found.checks[0].passed


def test_a_head_with_more_classes_is_restricted_and_the_names_say_so(patches, monkeypatch, tmp_path) -> None:
    listed = tmp_path / "three.txt"
    listed.write_text("".join(f"{name} {name}\n" for name in COLOURS), encoding="utf-8")
    more = {"black": (0, 0, 0), **COLOURS, "white": (255, 255, 255)}
    rows, context = measure(monkeypatch, patches, ColourClassifier(more), classes=str(listed))
    assert rows["plain"].all() and (int(rows["outputs"][0]), int(rows["head"][0])) == (3, 5)
    found = CueSuppression().score(rows, ITEM, context.settings(SuppressionSettings), {})
    assert all(metric.name.endswith("@3of5") for metric in found.metrics)
    assert "logits restricted to the 3 classes of the images" in found.notes


def test_logits_that_are_not_finite_are_refused(patches, monkeypatch) -> None:
    class Broken(ColourClassifier):
        def __call__(self, images):
            return super().__call__(images) * float("nan")

    with pytest.raises(UserError, match="logits that are not finite"):
        measure(monkeypatch, patches, Broken(COLOURS))


def test_levels_that_are_not_the_published_ones_stand_in_the_protocol() -> None:
    suite = CueSuppression()
    assert "levels" not in suite.protocol(SuppressionSettings())
    words = suite.protocol(SuppressionSettings(colour=(1.0,), texture=()))
    assert words.endswith("levels: colour 1; texture left out")


@pytest.mark.parametrize("wrong", [{"local_detail": [4]}, {"colour": [0.0]}, {"global_shape": [1]}, {"texture": [1]}])
def test_levels_that_mean_nothing_are_refused(wrong) -> None:
    with pytest.raises(UserError):
        parse_settings(SuppressionSettings, wrong, "cue-suppression")


def test_the_plugin_imports_no_heavy_packages() -> None:
    heavy = "[m for m in ('torch', 'pandas', 'cv2', 'PIL') if m in sys.modules]"
    code = f"import sys, suites.cue_suppression, suites.object_bias; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
