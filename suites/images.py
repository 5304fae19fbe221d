"""Suite `images`: what the images of a data set say of themselves beside real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from harness.api import (
    Check,
    ColumnKind,
    Context,
    Estimate,
    FloatArray,
    FolderSource,
    Item,
    Metric,
    NotPlanned,
    Score,
    Settings,
    Suite,
    SuiteCard,
    Units,
    UserError,
    bootstrap,
    flag_units,
    image_folder,
    open_images,
    proportion,
    ratio,
    undefined,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DATA = "train"
REAL, IMAGES = "real", "images"
"""The two sides of the rows."""
ENOUGH = 100
"""Images a side below which no value is valid: the ball of five neighbours then holds a twentieth of all images."""
MANY = 1000
"""Images a side below which a note says that values are rough."""
_NAME = "{class_name}"
_SIDES = {
    "density": IMAGES,
    "precision": IMAGES,
    "coverage": REAL,
    "recall": REAL,
    "near_duplicates": IMAGES,
    "class_agreement": IMAGES,
}
"""Metric that is a mean of a column to the side whose images are counted."""


class ImagesSettings(Settings):
    """Which encoders look at the images, and at how many."""

    clip: str = Field(
        "",
        description="CLIP that reads the class, and compares images unless encoder is set: a folder, or open_clip:NAME@TAG",
    )
    encoder: str = Field(
        "",
        description="Encoder that images are compared with: a folder of open_clip or timm, open_clip:NAME@TAG, or timm:NAME",
    )
    prompt: str = Field(
        f"a photo of a {_NAME}", description="What the CLIP is asked; {class_name} stands for the name of a class"
    )
    per_class: int = Field(50, ge=2, description="Most images of a class; at most half of the real ones are taken")

    @field_validator("prompt")
    @classmethod
    def _names_the_class(cls, value: str) -> str:
        if _NAME not in value:
            raise ValueError(f"it lacks {_NAME}, so that all classes would be the same")
        return value


class Images(Suite[ImagesSettings]):
    """Compare equally many images of the data set and of the real training set; one row per image."""

    card = SuiteCard(
        id="images",
        version=1,
        summary="Are the images like real ones, diverse, of the class they are named, and can they be distinguished from real ones?",
        formula="x real, y of the data set, n of each, r_k(x): distance to the k-th nearest other x. density = 1/(k n) sum_ij "
        "[|y_i - x_j| <= r_5(x_j)], coverage = share of x_j with some y_i that near; precision = share of y_i with some "
        "|y_i - x_j| <= r_3(x_j), recall = the same with x and y exchanged",
        metrics={
            "density": "mean number of real balls around an image, over k = 5; about 1 where both sides are alike, no upper bound",
            "coverage": "share of real images whose ball of k = 5 neighbours holds an image of the data set; 0.97 = 1 - 1/2^5 where both "
            "sides are alike",
            "precision": "share of images within the ball (k = 3) of some real image",
            "recall": "share of real images within the ball (k = 3) of some image of the data set",
            "near_duplicates": "share of images whose 63-bit perceptual hash differs from that of another sampled image in at most 2 bits",
            "class_agreement": "share of images whose CLIP feature is nearest to the prompt of their own class",
            "class_agreement_real": "the same of the real images: what this CLIP can read at all",
            "diversity": "mean over classes of the mean pairwise cosine distance, divided by that of the real images",
            "diversity_images": "mean over classes of the mean pairwise cosine distance within a class",
            "diversity_real": "the same of the real images",
            "origin_accuracy": "share of held-out images whose origin (data set or real) a classifier recognises; 0.5 is chance",
        },
        conventions=(
            "real images: the profile's data set train; both sides have the same number of images in every class, because radii shrink as "
            "n grows, and a larger side would have smaller balls",
            "sample: at most per_class images of a class and at most half of the real ones, by a hash of their names; a real image is "
            "never on both sides, so the row of `real` compares real with other real images: read all values beside it",
            "distances: Euclidean between features of length one, rounded to 1/10,000; balls are closed",
            "near duplicates are sought in the sample, so their share grows with n",
            "origin: logistic regression (squared penalty, C = 0.1) on the same features, trained on each half and judged on the other; it "
            "is a lower bound of what a network trained on pixels would recognise",
            "intervals: Wilson over the images of the side that is counted (coverage and recall: the real ones), bootstrap over images "
            "for density, over classes for diversity; the other side is held fixed",
            "secondary metrics: shown with --columns images, never ranked or gated",
        ),
        citation="Naeem et al., ICML 2020 (density, coverage); Kynkäänniemi et al., NeurIPS 2019 (precision, recall); Liu and He 2024, "
        "arXiv 2403.08632 (origin)",
        order=60,
        data=(DATA,),
        groups=("images",),
        default=False,
        subject="dataset",
        sources=(
            "density and coverage: Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, ICML 2020, k = 5",
            "precision and recall: Kynkäänniemi et al., Improved Precision and Recall Metric, NeurIPS 2019, k = 3",
            "origin: Liu and He, A Decade's Battle on Dataset Bias, 2024, who train a network on pixels; here linear on frozen features",
            "perceptual hash: signs of the low DCT frequencies about their median (Zauner 2010)",
        ),
        known_disagreements=(
            "the released code of density and coverage takes open balls (<), the paper's text and precision and recall closed ones; "
            "here all are closed, which differs for exact copies only",
            "both papers use networks trained on ImageNet (VGG-16, Inception); features of the named encoder are used here",
        ),
    )
    Settings = ImagesSettings
    sources = ("clip", "encoder")
    columns: ClassVar[Mapping[str, ColumnKind]] = {
        "side": "text",
        "item": "text",
        "label": "integer",
        **dict.fromkeys((*_SIDES, "distance", "origin"), "number"),
    }
    row_key = ("side", "item")

    def items(self, settings: ImagesSettings, arch: str) -> Sequence[Item]:
        """Return the one evaluation of a data set."""
        if not (settings.clip or settings.encoder):
            raise NotPlanned("the profile names no encoder: --set suites.images.clip=open_clip:NAME@TAG")
        return (Item(self.card.id, (DATA,)),)

    def protocol(self, settings: ImagesSettings) -> str:
        """Say which encoders look, and at how many images."""
        names = [
            Path(name).name if "/" in name else name for name in (settings.encoder or settings.clip, settings.clip)
        ]
        return f"features of {names[0]}, class read by {names[1] or 'none'} ({settings.prompt!r}), {settings.per_class} of a class"

    def cost(self, item: Item, settings: ImagesSettings, cards: Mapping[str, Any]) -> str:
        """Say how many images are read."""
        return f"at most {settings.per_class} real images of a class and as many of the data set"

    def rows(self, ctx: Context) -> pd.DataFrame:
        """Return one row per image of either side; a value that is not measured on its side is NaN."""
        from harness.api import decode_image
        from suites.likeness.neighbours import K_BALL
        from suites.likeness.sampling import draw_samples

        settings = ctx.settings(ImagesSettings)
        real = FolderSource(image_folder(ctx.data(DATA)), ctx.classes.ids)
        images = open_images(ctx)
        drawn = draw_samples(real, images, ctx.classes.ids, settings.per_class)
        if len(drawn.labels) <= K_BALL:
            raise UserError(
                f"{len(drawn.labels)} images a side are too few to compare",
                f"the ball of an image reaches to its {K_BALL}th neighbour; equally many real images are taken, half of a class at most",
                "give more images, or leave out the suite images",
            )
        sides = {
            REAL: [(real.names[i], lambda i=i: decode_image(real.read(i), real.names[i])) for i in drawn.real],
            IMAGES: [(images.names[i], lambda i=i: decode_image(images.read(i), images.names[i])) for i in drawn.images],
        }  # fmt: skip
        return measure(ctx, settings, sides, drawn.labels)

    def score(self, rows: pd.DataFrame, item: Item, settings: ImagesSettings, cards: Mapping[str, Any]) -> Score:
        """Return the metrics, a check that there are enough images for neighbours, and a note where there are few."""
        n = int((rows["side"] == IMAGES).sum())
        metrics = [
            Metric(
                name,
                _mean(rows, name),
                "ratio" if name == "density" else "fraction",
                "lower" if name == "near_duplicates" else "higher",
                "secondary",
                beside=("class_agreement_real",) if name == "class_agreement" else (),
            )
            for name in _SIDES
        ]
        origin = proportion(rows["origin"].to_numpy() > 0.5, population="new images of either side")
        metrics.append(Metric("origin_accuracy", origin, "fraction", "lower", "secondary"))
        agreement = _mean(rows, "class_agreement", REAL)
        metrics.append(Metric("class_agreement_real", agreement, "fraction", "neither", "companion"))
        meaning = f"with fewer than {ENOUGH} images a side the neighbours of an image are not near it"
        note = f"{n} images a side: values of density, coverage, precision and recall depend on n, and fewer than {MANY} are rough"
        return Score(
            (*metrics, *_diversity(rows)),
            (Check("enough images", n >= ENOUGH, float(n), float(ENOUGH), meaning),),
            (note,) if n < MANY else (),
        )

    def units(
        self, rows: pd.DataFrame, item: Item, settings: ImagesSettings, cards: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[Units, ...]:
        """Return the values per image of the metrics that are means over images."""
        found = []
        for name, side in _SIDES.items():
            part = rows[(rows["side"] == side) & rows[name].notna()]
            if name in names and len(part):
                found.append(flag_units(name, list(part["item"]), part[name].to_numpy()))
        if "origin_accuracy" in names:
            ids = [f"{side} {name}" for side, name in zip(rows["side"], rows["item"], strict=True)]
            found.append(flag_units("origin_accuracy", ids, rows["origin"].to_numpy()))
        return tuple(found)


def measure(
    ctx: Context,
    settings: ImagesSettings,
    sides: Mapping[str, Sequence[tuple[str, Callable[[], Any]]]],
    labels: Sequence[int],
) -> pd.DataFrame:
    """Return the rows of two equally long lists of images (name, and a function that opens it), real ones first."""
    import numpy as np
    import pandas as pd

    from suites.likeness.duplicates import near_duplicates, perceptual_hash
    from suites.likeness.neighbours import mean_distances, neighbours, unit_features
    from suites.likeness.origin import origin_correct

    classes, n = np.asarray(labels), len(labels)
    features, agreement, hashes = _encode(ctx, settings, sides, perceptual_hash)
    units = {side: unit_features(table) for side, table in features.items()}
    near, blank = neighbours(units[REAL], units[IMAGES]), np.full(n, np.nan)
    distance = {
        side: np.concatenate([mean_distances(table[classes == label]) for label in np.unique(classes)])
        for side, table in units.items()
    }
    correct = origin_correct(units[REAL], units[IMAGES]).astype(float)
    hits = {side: blank if named is None else (named == classes).astype(float) for side, named in agreement.items()}
    parts = {
        REAL: {"coverage": near.coverage, "recall": near.recall, "origin": correct[:n]},
        IMAGES: {
            "density": near.density,
            "precision": near.precision,
            "near_duplicates": near_duplicates(hashes).astype(float),
            "origin": correct[n:],
        },
    }
    tables = []
    for side, part in parts.items():
        shared = {"side": side, "item": [name for name, _ in sides[side]], "label": classes}
        both = {"class_agreement": hits[side], "distance": distance[side]}
        tables.append(pd.DataFrame({**shared, **dict.fromkeys(_SIDES, blank), **part, **both}))
    return pd.concat(tables, ignore_index=True)


def _encode(
    ctx: Context,
    settings: ImagesSettings,
    sides: Mapping[str, Sequence[tuple[str, Callable[[], Any]]]],
    hash_of: Callable[[Any], int],
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return the features of both sides, the class that the CLIP names (None without one), and the hashes of the data set's images."""
    import numpy as np

    from suites.likeness.encoders import load_encoder

    reader = ctx.cached("clip", lambda: load_encoder(ctx.source("clip"), ctx.device)) if settings.clip else None
    encoder = (
        ctx.cached("encoder", lambda: load_encoder(ctx.source("encoder"), ctx.device)) if settings.encoder else reader
    )
    assert encoder is not None  # items refuses settings without either
    prompts = [settings.prompt.replace(_NAME, name) for name in ctx.classes.names]
    texts = None if reader is None else _unit(reader.texts(prompts))
    features, named = {}, {}
    hashes: list[int] = []

    def opened(
        side: str, hashed: bool
    ) -> Iterator[Any]:  # one at a time: thousands of photographs would fill the memory
        for place, (_, read) in enumerate(sides[side]):
            image = read()
            if hashed:
                hashes.append(hash_of(image))
            ctx.progress(place + 1, len(sides[side]), f"images ({side})")
            yield image

    for side in sides:
        features[side] = encoder.features(opened(side, hashed=side == IMAGES))
        seen = features[side] if reader is encoder or reader is None else reader.features(opened(side, hashed=False))
        named[side] = None if texts is None else (_unit(seen) @ texts.T).argmax(axis=1)
    return features, named, np.asarray(hashes, dtype=np.uint64)


def _unit(table: np.ndarray) -> np.ndarray:
    import numpy as np

    return table / np.linalg.norm(table, axis=1, keepdims=True)


def _quotient(totals: FloatArray) -> FloatArray:
    """Return the first feature over the second, both summed over strata."""
    return ratio(totals[..., 0].sum(axis=1), totals[..., 1].sum(axis=1))


def _mean(rows: pd.DataFrame, name: str, side: str = "") -> Estimate:
    """Return the mean of a column over the images of its side."""
    import numpy as np

    part = rows[(rows["side"] == (side or _SIDES[name])) & rows[name].notna()]
    of_real = (side or _SIDES[name]) == REAL
    population = "new real images, these of the data set" if of_real else "new images of this data set, these real ones"
    if not len(part):
        return undefined("no CLIP is named (suites.images.clip)", population=population)
    if name != "density":
        return proportion(part[name].to_numpy() > 0.5, population=population)
    strata = [np.column_stack([each, np.ones(len(each))]) for _, each in part.groupby("label", sort=True)[name]]
    return bootstrap(
        _quotient,
        strata,
        seed=0,
        population=population,
        method="bootstrap (image)",
    )


def _diversity(rows: pd.DataFrame) -> tuple[Metric, ...]:
    """Return diversity relative to the real images, and that of each side; resampled by class."""
    import numpy as np

    means = rows.dropna(subset="distance").groupby(["side", "label"])["distance"].mean().unstack("side")
    population = "new classes"
    if means.empty:
        nothing = undefined("no class has two images", population=population)
        found = {"diversity": nothing, "diversity_images": nothing, "diversity_real": nothing}
    else:
        table = np.column_stack([means[IMAGES], means[REAL], np.ones(len(means))])
        quotients = {"diversity": (0, 1), "diversity_images": (0, 2), "diversity_real": (1, 2)}
        found = {
            name: bootstrap(
                _quotient,
                [table[:, columns]],
                seed=0,
                population=population,
                method="bootstrap (class)",
                undefined_reason="all real images of a class are the same",
            )
            for name, columns in quotients.items()
        }
    return (
        Metric("diversity", found["diversity"], "ratio", "neither", "secondary", beside=("diversity_real",)),
        Metric("diversity_images", found["diversity_images"], "ratio", "neither", "companion"),
        Metric("diversity_real", found["diversity_real"], "ratio", "neither", "companion"),
    )
