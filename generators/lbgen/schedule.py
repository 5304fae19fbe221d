"""What every step of a fine-tune trains on: class order, samples of a step, negative names (pure, no torch)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generators.lbgen.settings import RecipeSettings
from harness.api import UserError, derive_seed


@dataclass(frozen=True)
class PlannedStep:
    """One optimizer step; the sample id of an image is its position in ``classes``."""

    phase: Literal["warmup", "train"]
    epoch: int
    classes: tuple[int, ...]


def plan_steps(settings: RecipeSettings, class_count: int, seed: int) -> tuple[PlannedStep, ...]:
    """Return all steps: discriminator warm-up passes with twice the batch, then the epochs.

    Every pass shows each class once, in a new order; its last batch is filled up from the front of that order.
    """
    warmups = settings.warmup_passes if settings.weight_en > 0 else 0
    passes: list[tuple[Literal["warmup", "train"], int, int]] = [
        *(("warmup", index, 2 * settings.batch) for index in range(warmups)),
        *(("train", index, settings.batch) for index in range(settings.epochs)),
    ]
    steps = []
    for phase, epoch, batch in passes:
        order = list(range(class_count))
        random.Random(derive_seed("lbgen-order", seed, phase, epoch)).shuffle(order)
        whole = -(-class_count // batch) * batch
        filled = list(itertools.islice(itertools.cycle(order), whole))
        steps += [PlannedStep(phase, epoch, tuple(filled[at : at + batch])) for at in range(0, whole, batch)]
    return tuple(steps)


def update_counts(settings: RecipeSettings, class_count: int) -> tuple[int, int]:
    """Return how many updates the discriminator's warm-up and the LoRA get: (16, 96) for 1000 names by the paper's settings."""
    warmups = settings.warmup_passes if settings.weight_en > 0 else 0
    updates = -(-class_count // settings.batch)
    return warmups * -(-class_count // (2 * settings.batch)), settings.epochs * updates


def negative_class(names: Sequence[str], own: int, seed: int, step: int, sample: int) -> int:
    """Return a class drawn uniformly from those whose *name* differs from that of class ``own``.

    Two pairs of ImageNet classes share a name, so excluding the index alone would not do.

    Raises:
        UserError: no other name exists.
    """
    others = [index for index, name in enumerate(names) if name != names[own]]
    if not others:
        raise UserError(
            "the adversarial loss has no other class to draw",
            f"all classes are called {names[own]!r}",
            "use at least two class names, or set weight_en to 0",
        )
    return others[random.Random(derive_seed("lbgen-negative", seed, step, sample)).randrange(len(others))]
