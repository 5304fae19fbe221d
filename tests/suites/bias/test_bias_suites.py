"""The three suites as plugins, on sets of the embedded world in the public layouts."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from harness.core.classes import load_classes
from harness.microworld.causes import SHAPES
from harness.microworld.datasets import bias as writers

IDS = load_classes("micro").ids
SUITES = {
    "texture-bias": ("suites.texture_bias", "TextureBias", "cue-conflict", "TI"),
    "context-bias": ("suites.context_bias", "ContextBias", "focus", "CB_avg"),
    "background-bias": ("suites.background_bias", "BackgroundBias", "in9", "BG_Gap"),
}
SHARED = {"name": "small", "attribution": "", "image_size": 64}
OWN = {name: [IDS[index]] for index, name in enumerate(SHAPES)}
CARDS = {
    "cue-conflict": SHARED | {"categories": OWN, "expected_images": 144, "expected_conflict": 132},
    "focus": SHARED
    | {
        "categories": OWN,
        "expected_images": 96,
        "uncommon": {name: writers.uncommon_words(index) for index, name in enumerate(SHAPES)},
        "vocabulary": {
            "time": [*writers.TIME_WORDS.values(), "none"],
            "weather": [*writers.WEATHER_WORDS.values(), "none"],
            "locations": sorted({word for words in writers.PLACE_WORDS.values() for word in words}),
        },
    },
    "in9": SHARED
    | {
        "categories": {name: [IDS[SHAPES.index(shape)] for shape in shapes] for name, shapes in writers.COARSE},
        "folders": writers.coarse_folders(),
        "expected_per_variation": 36,
    },
}


class StubContext:
    """What the three suites use of a context."""

    def __init__(self, root):
        self.root, self.progress_calls = root, 0

    def data(self, name):
        return self.root / name

    def card(self, name):
        return CARDS[name]

    def settings(self, model):
        return model()

    def progress(self, done, total, note):
        self.progress_calls += 1


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    writers.write_cue_conflict(root / "cue-conflict", 1)
    writers.write_focus(root / "focus", 2)
    writers.write_backgrounds(root / "in9", 4)
    return StubContext(root)


@pytest.mark.parametrize("suite_id", SUITES)
def test_suite_measures_rows_and_flags_an_untrained_network(suite_id, context, untrained_network, monkeypatch):
    module, attribute, data, primary = SUITES[suite_id]
    plugin = importlib.import_module(module)
    suite = getattr(plugin, attribute)()
    monkeypatch.setattr(plugin, "classifier", lambda ctx: untrained_network(IDS))
    assert (suite.card.id, suite.card.data, suite.card.groups) == (suite_id, (data,), ("bias",))
    (item,) = suite.items(suite.Settings(), "resnet50")
    rows = suite.rows(context)
    result = suite.score(rows, item, suite.Settings(), {data: CARDS[data]})
    assert [m.name for m in result.metrics if m.role == "primary"] == [primary]
    assert len({m.name for m in result.metrics}) == len(result.metrics)
    assert not all(check.passed for check in result.checks)
    assert len(rows) == {"cue-conflict": 144, "focus": 96, "in9": 180}[data] and context.progress_calls > 0


def test_plugin_modules_import_no_heavy_packages():
    modules = ", ".join(module for module, *_ in SUITES.values())
    code = (
        f"import sys, {modules}; print([m for m in ('torch', 'pandas', 'sklearn', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
