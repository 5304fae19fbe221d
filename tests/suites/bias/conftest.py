"""Facts and tiny classifiers for the tests of the bias suites."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from suites.bias.texture import parse_name, stimulus_columns
from tests.tiny_roots import save_image

DATA = Path(__file__).parent / "data"


def table(name):
    """Read a CSV file of the test data as a list of dictionaries."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def manifest():
    from suites.bias.texture import public_stimuli

    return public_stimuli()


@pytest.fixture(scope="session")
def decisions():
    """Answers of networks (`mvh:`) and people (`human:`), one row per image."""
    from suites.bias.people import answers

    people = answers()
    rows = table("cue_conflict_decisions.csv")
    return [row | {f"human:{name}": answer for name, answer in people[row["image"]].items()} for row in rows]


@pytest.fixture(scope="session")
def reference_values():
    """Counts and values that others published, or that were recomputed from their per-image files."""
    return json.loads((DATA / "reference_values.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def in100_coverage():
    return json.loads((DATA / "in100_coverage.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def stimuli(manifest):
    """Columns of the 1280 stimuli in manifest order."""
    return stimulus_columns([parse_name(row["relpath"]) for row in manifest])


@pytest.fixture(scope="session")
def answers(manifest, decisions):
    """Answers per observer in manifest order."""
    return in_order(decisions, manifest)


def in_order(decisions, manifest):
    """Turn a table of decisions into one array per observer, in manifest order."""
    by_image = {row["image"]: row for row in decisions}
    ordered = [by_image[row["relpath"].split("/")[1]] for row in manifest]
    return {name: np.asarray([row[name] for row in ordered]) for name in ordered[0] if name != "image"}


def with_answers(stimuli, answer):
    quiet = np.zeros(len(answer), dtype=bool)
    return stimuli | {"answer": np.asarray(answer), "tied": quiet, "converted": quiet, "truncated": quiet}


def values(result):
    return {metric.name: metric.estimate for metric in result.metrics}


@pytest.fixture(scope="session")
def class_indices():
    return json.loads((DATA / "class_indices.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def focus_counts():
    """Rows of FOCUS, one per image, rebuilt from the joint counts; `correct:<model>` per model."""
    cells = table("focus_joint_counts.csv")
    repeat = np.asarray([int(cell["n_images"]) for cell in cells])
    columns = {"category": np.repeat([cell["category"] for cell in cells], repeat)}
    for name in ("uncommon_time", "uncommon_weather", "uncommon_location"):
        columns[name] = np.repeat([cell[name] == "1" for cell in cells], repeat)
    for key in cells[0]:
        if key.startswith("top1_correct:"):
            columns["correct:" + key.split(":")[1]] = np.repeat([cell[key] == "1" for cell in cells], repeat)
    columns["converted"] = columns["truncated"] = np.zeros(repeat.sum(), dtype=bool)
    return columns


class ColourClassifier:
    """Answer with the class whose colour is nearest to the mean colour of the image; any colour lists work.

    `gain` 0 gives a constant classifier that always answers the first class.
    """

    image_size, interpolation, identity = 0, "bilinear", "colours"

    def __init__(self, colours, gain=40.0):
        self.classes = tuple(colours)
        self.colours = np.asarray(list(colours.values()), dtype=np.float32) / 255.0
        self.gain = gain

    def __call__(self, images):
        import torch

        assert images.dtype == torch.float32 and images.shape[1] == 3
        mean = images.mean(dim=(2, 3))
        distance = ((mean[:, None] - torch.from_numpy(self.colours)) ** 2).sum(-1)
        prior = torch.zeros(len(self.classes))
        prior[0] = 1e-3
        return prior - self.gain * distance


class UntrainedNetwork:
    """A small randomly initialised network."""

    image_size, interpolation, identity = 0, "bilinear", "untrained"

    def __init__(self, classes, seed=0):
        import torch

        self.classes = tuple(classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(), torch.nn.Linear(8, len(self.classes)),
            ).eval()  # fmt: skip

    def __call__(self, images):
        return self.net(images)


@pytest.fixture(scope="session")
def colour_classifier():
    return ColourClassifier


@pytest.fixture(scope="session")
def untrained_network():
    return UntrainedNetwork


@pytest.fixture(scope="session", name="save_image")
def save_image_fixture():
    """Save a flat image of a colour; returns the path."""
    return save_image
