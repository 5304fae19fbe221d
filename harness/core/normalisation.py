"""Normalisation of a checkpoint from outside: mean and standard deviation of its inputs, by name or as numbers.

Weights fed with another normalisation than theirs still answer, only worse; one ViT-B moves by three points of TI.
"""

from __future__ import annotations

from harness.core.errors import UserError
from harness.core.names import did_you_mean

Colour = tuple[float, float, float]

KNOWN: dict[str, tuple[Colour, Colour]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "in9": ((0.4717, 0.4499, 0.3837), (0.2600, 0.2516, 0.2575)),
}
"""``half``: many vision transformers; ``in9``: nine-class networks of the backgrounds challenge (Xiao et al., ICLR 2021)."""


def parse_normalisation(text: str) -> tuple[Colour, Colour]:
    """Return mean and standard deviation for a known name or ``M,M,M/S,S,S`` (images in [0, 1]).

    Raises:
        UserError: neither, or a standard deviation that is not positive.
    """
    if text in KNOWN:
        return KNOWN[text]
    try:
        mean, std = (tuple(float(part) for part in half.split(",")) for half in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if (
        len(mean) != 3
        or len(std) != 3
        or not all(0 < value < 10 for value in std)
        or not all(-10 < m < 10 for m in mean)
    ):
        raise UserError(
            f"normalisation {text!r} is not known",
            f"it is one of {', '.join(KNOWN)}, or mean and standard deviation of red, green and blue",
            f"{did_you_mean(text, KNOWN)}write e.g. 0.5,0.5,0.5/0.5,0.5,0.5",
        )
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
