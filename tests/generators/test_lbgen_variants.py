"""lbGen as released: each difference from the paper, on tiny models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generators.lbgen.discriminator import Discriminator
from generators.lbgen.distributed import SingleProcess
from generators.lbgen.encoders import RewardModels
from generators.lbgen.released import all_pairs_loss, first_names, noise_track, process_batch
from generators.lbgen.rewards import Batch, Rewards
from generators.lbgen.settings import RecipeSettings
from generators.lbgen.trainer import Trainer
from harness.core.errors import UserError
from harness.plugins import registry

NAMES = ["tench", "hen", "crane", "kite", "drake", "loon"]


def recipe(**values: Any) -> RecipeSettings:
    small = {"steps": 2, "trained_steps": 1, "rank": 2, "epochs": 1, "batch": 4, "micro_batch": 2, "weight_q": 0.0}
    return RecipeSettings(**small | values)


def test_released_real_texts_are_the_first_names_of_the_list() -> None:
    settings = RecipeSettings(batch=32, micro_batch=4)
    assert [first_names(s, process_batch(settings, "train"), 1000) for s in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [first_names(s, process_batch(settings, "warmup"), 1000) for s in range(10)] == [*range(8), 0, 1]
    assert [noise_track(s, 4) for s in range(6)] == [0, 1, 2, 3, 0, 1]


def test_released_individual_loss_is_the_mean_over_all_pairs() -> None:
    images = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    captions = torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert float(all_pairs_loss(images, captions)) == pytest.approx(1 - (1 + 1 + 0 + 0) / 4)


def test_released_generator_gradient_is_that_of_l_en_alone(tiny_clip: Any) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    judge = Discriminator(tiny_clip.dim, 3, "leaky_relu", 0).requires_grad_(False)

    def score(**values: Any) -> tuple[dict[str, float], torch.Tensor]:
        rewards = Rewards(recipe(**values), RewardModels(tiny_clip), NAMES, torch.device("cpu"))
        return rewards.score(Batch([0, 1], [2, 3], images), judge)

    released, gradient = score(variant="released", weight_in=1.0)
    _, alone = score(weight_in=0.0)
    paper, both = score(weight_in=1.0)
    assert torch.equal(gradient, alone) and not torch.allclose(gradient, both)
    rewards = Rewards(recipe(variant="released"), RewardModels(tiny_clip), NAMES, torch.device("cpu"))
    assert rewards.total(released) == released["L_en"], "what it optimises is logged as the total"
    assert set(released) == {"L_en", "L_in"} and released["L_in"] != pytest.approx(paper["L_in"])


def test_released_trainer_clips_nothing_and_shares_noise(tiny_parts: Any, tiny_clip: Any) -> None:
    def trainer(variant: Any) -> Trainer:
        settings = recipe(variant=variant, weight_in=0.0, discriminator_clip=1e-9)
        return Trainer(tiny_parts, settings, RewardModels(tiny_clip), NAMES, seed=0, comm=SingleProcess())

    def moved(made: Trainer) -> tuple[float, list[torch.Tensor]]:
        first = next(step for step in range(len(made.plan)) if made.plan[step].phase == "train")
        batches = [batch for batch, _ in made._samples(first, made.plan[first], ())]
        before = [each.clone() for each in made.discriminator_list]
        made.run_step(first)
        norms = [
            float(each.detach().sub(old).abs().max()) for each, old in zip(made.discriminator_list, before, strict=True)
        ]
        return max(norms), [batch.negatives for batch in batches]

    released, paper = trainer("released"), trainer("paper")
    assert released.discriminator_clip == float("inf") and paper.discriminator_clip == 1e-9
    movement, negatives = moved(released)
    clipped, _ = moved(paper)
    assert movement > 1e-6 and clipped < movement / 2, "a clip at 1e-9 stops the paper's discriminator, not this one"
    assert negatives == [[0, 1], [0, 1]], "the first two names for each process of two"
    planned = released.plan[-1]
    assert released._tracks(planned, [2, 3]) == [0, 1] and paper._tracks(planned, [2, 3]) == [2, 3]


def test_the_card_says_what_is_fitted_how_and_with_which_question() -> None:
    from generators.lbgen.quality.levels import PROMPT

    generator = registry.generators().get("lbgen")
    text = " ".join(generator.card.differences)
    for word in ("fit_classes", "1000 ImageNet names (96 LoRA updates)", "float32 by default (fit_precision)", "trains in FP16",
                 "independent for every image", "4 noise tracks", "`score` method", "The image of the quality is"):  # fmt: skip
        assert word in text, word
    asked, _, answer = PROMPT.partition("<|image|>")
    assert asked.removeprefix("USER: ").strip() in text and answer.partition("ASSISTANT: ")[2] in text
    meanings = {name: field.description or "" for name, field in generator.Settings.model_fields.items()}
    assert "(equation 5)" in meanings["weight_en"] and "(equation 6)" in meanings["weight_in"]


def test_released_card_lists_every_difference_and_settings() -> None:
    generator = registry.generators().get("lbgen-released")
    text = " ".join(generator.card.differences)
    for word in ("L_en alone", "first B names", "no check", "B x B", "LeakyReLU", "non-saturating", "warm-up", "inert",
                 "DDPM", "score-function", "checkpoint-128", "same latents",
                 "mirror", "crane", "weight symbols", "`total` of the log", "fit_classes", "NOT reproduced"):  # fmt: skip
        assert word in text, word
    settings: Any = generator.Settings()
    assert (settings.discriminator_activation, settings.weight_q, settings.micro_batch) == ("leaky_relu", 0.0, 4)
    with pytest.raises(UserError, match="released variant"):
        recipe(variant="released", weight_en=0.0)
