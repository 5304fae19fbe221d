"""Bias sets of the embedded world in their public layouts: cue-conflict, FOCUS and the backgrounds challenge."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.microworld.causes import (
    LIGHTS,
    SCENES,
    SHAPES,
    TEXTURES,
    WEATHERS,
    WEB,
    Causes,
    Doses,
    draw_causes,
    partner_light,
    partner_scene,
    partner_weather,
)
from harness.microworld.datasets.files import pixels, save_images, seed, seeds
from harness.microworld.datasets.worlds import class_id
from harness.microworld.renderer import (
    background,
    compose,
    develop,
    natural_placement,
    object_masks,
    object_surfaces,
    render,
)

SHAPE_SOURCES, TEXTURE_SOURCES = 10, 3

TIME_WORDS = {"day": "day", "night": "night", "sunset": "sunset"}
WEATHER_WORDS = {"clear": "sunny", "foggy": "foggy", "snowing": "snowing"}
# Some scenes carry two words, one of them shared, so that a scene is uncommon as soon as any of its words is.
PLACE_WORDS = {
    "sky": ("sky",), "meadow": ("grass",), "sea": ("sand", "water"), "desert": ("rocks", "sand"),
    "forest": ("forest",), "room": ("indoors",), "space": ("space",), "city": ("street",),
}  # fmt: skip
_UNDATED, _SHELTERED = ("space",), ("room", "space")  # no time of day in space; no weather where it is not seen

COARSE = (
    ("round thing", ("disc", "ring")),
    ("block", ("square", "cross")),
    ("pointed thing", ("star", "bolt")),
    ("triangle", ("triangle",)),
    ("crescent", ("crescent",)),
    ("heart", ("heart",)),
    ("arrow", ("arrow",)),
    ("gear", ("gear",)),
    ("leaf", ("leaf",)),
)
"""Coarse labels of the backgrounds challenge, in label order, with their classes."""


def write_cue_conflict(root: Path, per_pair: int) -> None:
    """Write ``<shape>/<shape><i>-<texture><j>.png``: every ordered pair of categories ``per_pair`` times.

    Texture category t is the texture that class t prefers in a biased world, in its own colour. The ten shape sources of
    a category (pose, place and surroundings) and the three texture sources (phase, scale, hue) are shared across images. The surroundings
    are the mean of all scenes in plain daylight: networks that rely on scenes would answer any single one.
    """
    for shape, name in enumerate(SHAPES):
        pairs = [
            (texture, (texture * per_pair + k) % SHAPE_SOURCES, (shape + k) % TEXTURE_SOURCES)
            for texture in range(len(TEXTURES))
            for k in range(per_pair)
        ]
        shape_seeds = seeds(("cue shape", shape, i) for _, i, _ in pairs)
        texture_seeds = seeds(("cue texture", texture, j) for texture, _, j in pairs)
        shapes = np.full(len(pairs), shape)
        place = natural_placement(shape_seeds)
        surfaces = object_surfaces(np.array([texture for texture, _, _ in pairs]), texture_seeds, place, coloured=True)
        scenes = [background(np.full(len(pairs), scene), shape_seeds) for scene in range(len(SCENES))]
        images = compose(np.mean(scenes, axis=0, dtype=np.float32), surfaces, object_masks(shapes, place))
        images = develop(images, np.zeros_like(shapes), np.zeros_like(shapes), shape_seeds)
        paths = [root / name / f"{name}{i + 1}-{SHAPES[texture]}{j + 1}.png" for texture, i, j in pairs]
        save_images(paths, pixels(images))


@dataclass(frozen=True)
class _Context:
    """One FOCUS image's circumstances: indices into LIGHTS, WEATHERS, SCENES."""

    light: int
    weather: int
    scene: int

    @property
    def time_word(self) -> str:
        if SCENES[self.scene] in _UNDATED:
            return "none"
        return TIME_WORDS[LIGHTS[self.light]]

    @property
    def weather_word(self) -> str:
        if SCENES[self.scene] in _SHELTERED and WEATHERS[self.weather] == "clear":
            return "none"
        return WEATHER_WORDS[WEATHERS[self.weather]]

    @property
    def places(self) -> tuple[str, ...]:
        return PLACE_WORDS[SCENES[self.scene]]


def uncommon_words(shape: int) -> dict[str, list[str]]:
    """Return the FOCUS attribute values that a class does not prefer in the web world."""
    own = np.array([shape])
    time = TIME_WORDS[LIGHTS[int(partner_light(own)[0])]]
    weather = WEATHER_WORDS[WEATHERS[int(partner_weather(own)[0])]]
    places = PLACE_WORDS[SCENES[int(partner_scene(own)[0])]]
    known = sorted({word for words in PLACE_WORDS.values() for word in words})
    return {
        "time": [word for word in TIME_WORDS.values() if word != time],
        "weather": [word for word in WEATHER_WORDS.values() if word != weather],
        "locations": [word for word in known if word not in places],
    }


def _uncommon_count(shape: int, context: _Context) -> int:
    table = uncommon_words(shape)
    return (
        (context.time_word in table["time"])
        + (context.weather_word in table["weather"])
        + any(place in table["locations"] for place in context.places)
    )


def _draw_context(shape: int, wanted: int, rng: np.random.Generator) -> _Context:
    """Draw circumstances with the wanted uncommon count, each choice of uncommon attributes equally likely."""
    own = np.array([shape])
    while True:
        odd = np.zeros(3, dtype=bool)
        odd[rng.permutation(3)[:wanted]] = True
        values = []
        for partner, size, strange in zip(
            (partner_light(own), partner_weather(own), partner_scene(own)),
            (len(LIGHTS), len(WEATHERS), len(SCENES)), odd, strict=True,
        ):  # fmt: skip
            shift = int(rng.integers(1, size)) if strange else 0
            values.append((int(partner[0]) + shift) % size)
        context = _Context(*values)
        if _uncommon_count(shape, context) == wanted:
            return context


def write_focus(root: Path, per_cell: int) -> None:
    """Write ``annotations.db`` and image folders named like search queries: ``per_cell`` images per category and count.

    Textures follow the web world; time, weather and locations are drawn for each uncommon count 0 to 3.
    """
    table: list[tuple[str, str, str, str, str, str]] = []
    numbers: dict[str, int] = {}
    for shape, category in enumerate(SHAPES):
        items = [("focus", shape, wanted, index) for wanted in range(4) for index in range(per_cell)]
        generators = [np.random.default_rng(seed("context", *item)) for item in items]
        contexts = [_draw_context(shape, item[2], rng) for item, rng in zip(items, generators, strict=True)]
        own = seeds(items)
        textures = draw_causes(np.full(len(items), shape), own, Doses(WEB.texture, 0.0, 0.0, 0.0)).texture
        causes = Causes(
            np.full(len(items), shape), textures, np.array([c.scene for c in contexts]),
            np.array([c.light for c in contexts]), np.array([c.weather for c in contexts]),
        )  # fmt: skip
        names = [_query_file(category, c, rng, numbers) for c, rng in zip(contexts, generators, strict=True)]
        save_images([root / name for name in names], pixels(render(causes, own).images))
        table += [
            (f"/{name}", category, c.time_word, c.weather_word, ", ".join(sorted(c.places)), "no")
            for name, c in zip(names, contexts, strict=True)
        ]
    _save_annotations(root / "annotations.db", table)


def _query_file(category: str, context: _Context, rng: np.random.Generator, numbers: dict[str, int]) -> str:
    """Return ``<query>/<n>.<suffix>``. A search engine errs: one image in twenty was found under another category."""
    words = [word for word in (context.time_word, context.weather_word, *context.places) if word != "none"]
    found = SHAPES[int(rng.integers(len(SHAPES)))] if rng.random() < 0.05 else category
    query = f"{found}-{words[int(rng.integers(len(words)))]}"
    numbers[query] = numbers.get(query, -1) + 1
    return f"{query}/{numbers[query]}.{'jpeg' if rng.random() < 0.5 else 'jpg'}"


def _save_annotations(path: Path, table: list[tuple[str, str, str, str, str, str]]) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute(
            "CREATE TABLE annotations (file_name TEXT PRIMARY KEY, category TEXT, time TEXT, weather TEXT,"
            " locations TEXT, humans TEXT)"
        )
        connection.executemany("INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?)", sorted(table))
        connection.commit()
    finally:
        connection.close()


def coarse_folders() -> tuple[str, ...]:
    """Return the class folders of the backgrounds challenge, ``00_round thing`` and so on, in label order."""
    return tuple(f"{label:02d}_{name}" for label, (name, _) in enumerate(COARSE))


def write_backgrounds(root: Path, per_label: int) -> None:
    """Write five variations of the same foregrounds, ``per_label`` of each coarse label.

    ``original`` is drawn from the web world; ``mixed_same`` shows the scene preferred by a class of the same label,
    ``mixed_rand`` the one preferred by a random class; ``only_fg`` and ``no_fg`` black out the rest or the object.
    """
    number = 0
    for label, (folder, (_, members)) in enumerate(zip(coarse_folders(), COARSE, strict=True)):
        shapes = np.array([SHAPES.index(members[index % len(members)]) for index in range(per_label)])
        own = seeds(("backgrounds", label, index) for index in range(per_label))
        behind = seeds(("behind", label, index) for index in range(per_label))
        rng = np.random.default_rng(seed("backgrounds", label))
        same = np.array([SHAPES.index(members[int(rng.integers(len(members)))]) for _ in range(per_label)])
        other = rng.integers(len(SHAPES), size=per_label)
        causes = draw_causes(shapes, own, WEB)
        original = render(causes, own)
        stems = [f"{class_id(shape)}_{number + index:05d}" for index, shape in enumerate(shapes)]
        number += per_label

        def save(variation: str, names: list[str], images: np.ndarray, folder: str = folder) -> None:
            base = root / "bg_challenge" / variation / "val" / folder
            save_images([base / f"{name}.JPEG" for name in names], pixels(images))

        save("original", stems, original.images)
        solid = (original.masks > 0.5)[:, None]
        save("only_fg", stems, np.where(solid, original.images, 0.0))
        save("no_fg", stems, np.where(solid, 0.0, original.images))
        for variation, source in (("mixed_same", same), ("mixed_rand", other)):
            swapped = render(replace(causes, scene=partner_scene(source)), own, background_seeds=behind)
            names = [
                f"fg_{stem}_bg_{class_id(int(shape))}_{90000 + number + index:05d}"
                for index, (stem, shape) in enumerate(zip(stems, source, strict=True))
            ]
            save(variation, names, swapped.images)
