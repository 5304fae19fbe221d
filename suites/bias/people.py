"""Answers of ten people to the public cue-conflict images, as rows like those of a network.

Geirhos et al., ICLR 2019; from bethgelab/model-vs-human (MIT). 9236 shape and 398 texture answers to conflict images.
"""

from __future__ import annotations

import csv
import importlib.resources
from pathlib import Path

import numpy as np

from harness.api import UserError
from suites.bias.cards import CueConflictCard
from suites.bias.images import Rows
from suites.bias.texture import read_stimuli, stimulus_columns

_FILE = "people_cue_conflict.csv"


def answers() -> dict[str, dict[str, str]]:
    """Return the answers: image name to person to category; `na` where nobody pressed a key in time."""
    text = importlib.resources.files("suites.bias").joinpath("data", _FILE).read_text("utf-8")
    return {line.pop("image"): line for line in csv.DictReader(text.splitlines())}


def answer_rows(root: Path, card: CueConflictCard) -> Rows:
    """Return one row per stimulus and person, the image named with the person; no answer is neither shape nor texture.

    Raises:
        DataMissing: no cue-conflict set below `root`.
        UserError: other stimuli than those people were shown.
    """
    _, stimuli = read_stimuli(root, card)
    known = answers()
    names = [stimulus.name.rsplit("/", 1)[-1] for stimulus in stimuli]
    strange = [name for name in names if name not in known]
    if strange:
        raise UserError(
            f"nobody was shown {len(strange)} of these {len(names)} images, e.g. {strange[0]}",
            "the answers of people are to the public cue-conflict images",
            "give --data cue-conflict=PATH of the public set",
        )
    people = list(next(iter(known.values())))
    columns = stimulus_columns([stimulus for stimulus in stimuli for _ in people])
    quiet = np.zeros(len(columns["image"]), dtype=bool)
    return columns | {
        "image": np.asarray([f"{s.name} {person}" for s in stimuli for person in people]),
        "stimulus": columns["image"],
        "observer": np.tile(people, len(stimuli)),
        "answer": np.asarray([known[name][person] for name in names for person in people]),
        "tied": quiet,
        "converted": quiet,
        "truncated": quiet,
    }
