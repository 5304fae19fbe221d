"""The rewards of lbGen's recipe on linear models in float64: every term, its gradient, and what is logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from generators.lbgen.discriminator import Discriminator
from generators.lbgen.encoders import RewardModels
from generators.lbgen.rewards import Batch, Rewards
from generators.lbgen.settings import RecipeSettings
from harness.core.errors import UserError

NAMES = ["tench", "hen", "kite"]
SIZE = 4
GENERATOR = torch.Generator().manual_seed(0)
MATRIX = torch.randn(3 * SIZE * SIZE, 5, generator=GENERATOR, dtype=torch.float64) / 7
IMAGES = torch.rand(2, 3, SIZE, SIZE, generator=GENERATOR, dtype=torch.float64)
TEXTS = {
    text: torch.randn(5, generator=GENERATOR, dtype=torch.float64)
    for name in NAMES
    for text in (name, f"photo of {name}")
}


class Linear:
    """An encoder whose image features are a matrix product."""

    dim = 5

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([TEXTS[text] for text in texts])

    def image_features(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return images.flatten(1) @ MATRIX, lambda grad: (grad @ MATRIX.T).view_as(images)


class Squares:
    """A score that is the mean square of the pixels, from 1 to 5 for pixels up to 2."""

    def score_and_grad(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return 1 + (images**2).mean((1, 2, 3)), 2 * images / (3 * SIZE * SIZE)


def rewards(**values: object) -> Rewards:
    settings = RecipeSettings(**{"weight_en": 0.7, "weight_in": 0.4, "weight_q": 3.0} | values)  # type: ignore[arg-type]
    return Rewards(settings, RewardModels(Linear(), Squares()), NAMES, torch.device("cpu"))  # type: ignore[arg-type]


@pytest.fixture
def judge() -> Discriminator:
    return Discriminator(5, seed=1, activation="leaky_relu").double()


def batch(images: Tensor = IMAGES) -> Batch:
    return Batch([2, 0], [1, 2], images)


@pytest.mark.parametrize("form", ["non-saturating", "saturating"])
def test_the_gradient_of_all_terms_is_that_of_finite_differences(judge: Discriminator, form: str) -> None:
    made = rewards(adversarial=form)
    _, gradient = made.score(batch(), judge)
    for index in ((0, 0, 0, 0), (0, 2, 3, 1), (1, 1, 2, 3)):
        step = torch.zeros_like(IMAGES)
        step[index] = 1e-5
        up, down = (made.total(made.score(batch(IMAGES + sign * step), judge)[0]) for sign in (1, -1))
        assert gradient[index].item() == pytest.approx((up - down) / 2e-5, rel=1e-6)


def test_terms_have_their_formulas_and_the_total_their_weights(judge: Discriminator) -> None:
    made, seen = rewards(), batch()
    values, _ = made.score(seen, judge)
    minimax = rewards(adversarial="saturating").score(batch(), judge)[0]
    features = IMAGES.flatten(1) @ MATRIX
    assert seen.features is not None and torch.equal(seen.features, features)
    logits = judge(features).flatten().tolist()
    assert values["L_en"] == pytest.approx(sum(math.log1p(math.exp(z)) for z in logits) / 2)
    assert minimax["L_en"] == pytest.approx(-sum(math.log1p(math.exp(-z)) for z in logits) / 2)
    own = torch.stack([TEXTS["photo of kite"], TEXTS["photo of tench"]])
    cosines = (features * own).sum(1) / features.norm(dim=1) / own.norm(dim=1)
    assert values["L_in"] == pytest.approx(1 - cosines.mean().item())
    assert values["L_q"] == pytest.approx(1 - (1 + (IMAGES**2).mean().item()) / 5)
    assert made.total(values) == pytest.approx(0.7 * values["L_en"] + 0.4 * values["L_in"] + 3 * values["L_q"])
    assert (made.terms, made.dim) == (("L_en", "L_in", "L_q"), 5)
    assert all(each.grad is None for each in judge.parameters()), "the discriminator is only read"


def test_a_loss_scale_multiplies_every_term_of_the_gradient(judge: Discriminator) -> None:
    for weights in ({}, {"weight_en": 0.0, "weight_in": 0.0}, {"weight_q": 0.0}):
        made = rewards(**weights)
        plain, scaled = (made.score(batch(), judge, scale)[1] for scale in (lambda x: x, lambda x: 8 * x))
        torch.testing.assert_close(scaled, 8 * plain)
        assert plain.abs().max() > 0


def test_what_is_logged_of_the_discriminator_has_known_values(judge: Discriminator) -> None:
    made, seen = rewards(), batch()
    made.encode(seen)
    assert seen.features is not None and torch.equal(seen.features, IMAGES.flatten(1) @ MATRIX)
    loss, logged = made.discriminator_terms(seen, judge)
    image = judge(seen.features).flatten().tolist()
    text = judge(torch.stack([TEXTS["hen"], TEXTS["kite"]])).flatten().tolist()
    softplus = [math.log1p(math.exp(z)) for z in [*(-z for z in image), *text]]
    assert tuple(logged) == Rewards.DISCRIMINATOR_TERMS
    assert logged == pytest.approx({
        "L_D": sum(softplus) / 4, "L_en_paper": -sum(softplus) / 2, "accuracy_image": sum(z > 0 for z in image) / 2,
        "accuracy_text": sum(z < 0 for z in text) / 2, "logit_image": sum(image) / 2, "logit_text": sum(text) / 2,
    })  # fmt: skip
    assert loss.requires_grad and loss.item() == pytest.approx(logged["L_D"])
    unsure = made.discriminator_terms(seen, lambda features: 0 * features[:, :1] + 0.5)[1]  # type: ignore[arg-type]
    assert (unsure["accuracy_image"], unsure["accuracy_text"]) == (1.0, 0.0), "zero parts the two"


@pytest.mark.parametrize("models", [RewardModels(None, Squares()), RewardModels(Linear(), None)])  # type: ignore[arg-type]
def test_a_missing_reward_model_is_named_unless_its_weight_is_zero(models: RewardModels) -> None:
    settings = RecipeSettings(weight_en=1.0, weight_in=1.0, weight_q=0.1)
    with pytest.raises(UserError, match="a reward model is missing"):
        Rewards(settings, models, NAMES, torch.device("cpu"))
    weights = {"weight_q": 0.0} if models.quality is None else {"weight_en": 0.0, "weight_in": 0.0}
    made = Rewards(RecipeSettings(**{"weight_q": 0.1} | weights), models, NAMES, torch.device("cpu"))
    assert made.terms == (("L_en", "L_in") if models.quality is None else ("L_q",))


def test_the_released_variant_back_propagates_l_en_alone(judge: Discriminator) -> None:
    released, values = rewards(variant="released"), {"L_en": 2.0, "L_in": 3.0, "L_q": 4.0}
    assert released.total(values) == pytest.approx(1.4) and rewards().total(values) == pytest.approx(1.4 + 1.2 + 12)
    alone = rewards(weight_in=0.0, weight_q=0.0).score(batch(), judge)[1]
    torch.testing.assert_close(released.score(batch(), judge)[1], alone)
