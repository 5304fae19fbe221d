"""Oracle captions: sentences that are true of a picture because its causes are known, and the words they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from harness.microworld.causes import LIGHTS, SCENES, SHAPES, TEXTURES, WEATHERS, Causes

LEVELS: tuple[str, ...] = ("excellent", "good", "fair", "poor", "bad")

# Words of the 80 prompt templates of CLIP's ImageNet evaluation, hyphens and full stops included.
_TEMPLATE_TEXT = """\
- . a and art bad black blurry bright cartoon clean close cool corrupted cropped dark dirty doodle drawing
embroidered game good graffiti hard in itap jpeg large low many my nice of one origami painting photo pixelated
plastic plushie rendering rendition resolution sculpture see sketch small tattoo the to toy up video weird
white"""
TEMPLATE_WORDS: tuple[str, ...] = tuple(_TEMPLATE_TEXT.split())
# Words of prompts and captions in use around the generators: quality suffixes, negative prompts, level prompts.
_PROMPT_TEXT = """\
, : ? an at best cropped deformed distorted frame from high how image is it like looks of on out picture
quality rate rated rather real realistic scene sharp that this unrealistic very view weather what with world
worst by day night time during under over near"""
PROMPT_WORDS: tuple[str, ...] = tuple(_PROMPT_TEXT.split())
COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "grey")
# Names of shapes, places and things beyond the twelve classes, for data sets with novel classes.
_EXTRA_TEXT = """\
anchor axe banana barrel bell bird boat book bottle bowl box bridge butterfly car cat chair circle clover cloud
club cone crown cube cup diamond dog door dome drop egg ellipse eye fan fish flag flower fork frame ghost glass
hammer hand hat helmet hexagon hook hourglass house key kite knife ladder lamp lens lock moon mountain mug
mushroom nut octagon oval paddle pear pentagon petal pill pin pine plane plus pot propeller pyramid rectangle
rhombus rocket sail saw shell shield ship shoe snowflake spade spear spiral spoon spring sun sword table tooth
tower trapezoid tree trefoil triangle tube tulip umbrella vase wave wedge wheel windmill wing wrench"""
EXTRA_WORDS: tuple[str, ...] = tuple(_EXTRA_TEXT.split())


def vocabulary() -> tuple[str, ...]:
    """Return every word that the tokenizer must know whole, sorted, without repeats."""
    known = (*SHAPES, *TEXTURES, *SCENES, *LIGHTS, *WEATHERS, *LEVELS, *TEMPLATE_WORDS, *PROMPT_WORDS)
    return tuple(sorted({*known, *COLOURS, *EXTRA_WORDS}))


@dataclass(frozen=True)
class Caption:
    """A sentence and the causes it names, in the order shape, texture, scene, light, weather; -1 = not named."""

    text: str
    named: tuple[int, int, int, int, int]


def sentence(shape: int | str, texture: int = -1, scene: int = -1, light: int = -1, weather: int = -1) -> str:
    """Return the plain sentence that names the given causes; a negative index leaves a cause out."""
    noun = shape if isinstance(shape, str) else SHAPES[shape]
    words = [TEXTURES[texture]] if texture >= 0 else []
    words.append(noun)
    if scene >= 0:
        words += ["on", SCENES[scene]]
    if light >= 0:
        words += ["at", LIGHTS[light]]
    if weather >= 0:
        words += ["in", WEATHERS[weather], "weather"]
    return " ".join(words)


_OPENINGS = ("", "", "photo of ", "photo of ", "a photo of a ", "a picture of a ", "this is a ", "a good photo of the ")


def oracle_caption(causes: Causes, index: int, rng: np.random.Generator, *, keep: float = 0.4) -> Caption:
    """Return a caption of picture `index` that names its shape and each other cause with probability `keep`."""
    values = [int(getattr(causes, cause)[index]) for cause in ("shape", "texture", "scene", "light", "weather")]
    kept = rng.random(4) < keep
    named = (values[0], *(v if k else -1 for v, k in zip(values[1:], kept, strict=True)))
    opening = _OPENINGS[int(rng.integers(len(_OPENINGS)))]
    return Caption(opening + sentence(*named), named)  # type: ignore[arg-type]


def oracle_captions(causes: Causes, seeds: np.ndarray, *, keep: float = 0.4) -> list[Caption]:
    """Return one caption per picture; each depends only on its own seed."""
    return [
        oracle_caption(causes, i, np.random.Generator(np.random.PCG64([int(seed), 7])), keep=keep)
        for i, seed in enumerate(seeds)
    ]


def training_captions(paths: Sequence[str]) -> list[str]:
    """Return the oracle captions of training images of the web world, named ``<class id>/<class id>_<index>.JPEG``."""
    from harness.microworld.causes import Doses, draw_causes
    from harness.microworld.datasets import PARAMETERS
    from harness.microworld.datasets.files import seeds

    stems = [PurePosixPath(path).stem.split("_") for path in paths]
    shapes = [int(class_id[1:]) - 1 for class_id, _ in stems]
    own = seeds(("web-train", shape, int(index)) for shape, (_, index) in zip(shapes, stems, strict=True))
    causes = draw_causes(np.array(shapes), own, Doses.all(PARAMETERS["web-train"]["dose"]))
    return [caption.text for caption in oracle_captions(causes, own)]
