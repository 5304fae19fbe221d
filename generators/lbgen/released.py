"""lbGen as its released code trains it, mistakes included: for comparison with the official repository only.

Where the released code departs from the paper (file and flag names are the official repository's):

* only L_en reaches the generator; L_in and L_q are computed, logged and dropped,
* "real" texts are always the first B names of the list (B: images of one process), the image's own name included,
* L_in averages over all B x B pairs of image and caption instead of the B matching ones,
* the discriminator has LeakyReLU(0.2) where the paper prints ReLU,
* its gradient clip sees an exhausted parameter iterator and clips nothing,
* every process draws the same latents and step noise, so a step has B noise tracks, not one per image.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import normalize

from generators.lbgen.settings import RecipeSettings

GENERATOR_TERMS = frozenset({"L_en"})
"""What is back-propagated into the generator."""
NO_CLIP = math.inf


def process_batch(settings: RecipeSettings, phase: str) -> int:
    """Return B, the images of one process: twice as many in the discriminator's warm-up."""
    return settings.micro_batch * (2 if phase == "warmup" else 1)


def first_names(sample: int, batch: int, names: int) -> int:
    """Return the class whose name stands for "real" beside a sample: the first B of the list in turn.

    The code permutes range(B) and takes the permutation for class indices; its loss averages over them, so the order does
    not matter. A list shorter than B wraps around.
    """
    return sample % batch % names


def noise_track(sample: int, batch: int) -> int:
    """Return which of a process's B noise tracks a sample gets; all processes draw the same ones."""
    return sample % batch


def all_pairs_loss(image_features: Tensor, caption_features: Tensor) -> Tensor:
    """Return the logged L_in: 1 minus the mean over the whole B x B matrix of cosines."""
    return 1 - (normalize(image_features, dim=-1) @ normalize(caption_features, dim=-1).T).mean()
