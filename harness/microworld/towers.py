"""The shipped models of the embedded world: where they are, how they are opened, and the correlation measured in pictures.

Nothing heavy is imported until a model is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.microworld.causes import (
    LIGHTS,
    SCENES,
    SHAPES,
    TEXTURES,
    WEATHERS,
    partner_light,
    partner_scene,
    partner_texture,
    partner_weather,
)

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).parent / "weights"
HEADS: dict[str, int] = {
    "shape": len(SHAPES), "texture": len(TEXTURES), "scene": len(SCENES), "light": len(LIGHTS),
    "weather": len(WEATHERS),
}  # fmt: skip
PARTNERS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "texture": partner_texture, "scene": partner_scene, "light": partner_light, "weather": partner_weather,
}  # fmt: skip
_MEAN, _STD = 0.5, 0.25


def sd_folder() -> Path:
    """Return the folder that `diffusers.StableDiffusionPipeline.from_pretrained` opens."""
    return WEIGHTS / "sd"


def clip_folder(size: Literal["base", "large"]) -> Path:
    """Return the folder of a CLIP, which open_clip opens as `local-dir:<folder>`."""
    return WEIGHTS / f"clip_{size}"


def quality_folder() -> Path:
    """Return the folder of the quality scorer, an open_clip model read with five level prompts."""
    return WEIGHTS / "quality"


def attributes_folder() -> Path:
    """Return the folder of the attribute classifier."""
    return WEIGHTS / "attributes"


def new_attribute_network() -> Any:
    """Build the untrained attribute classifier: a tiny ResNet whose outputs are the heads of HEADS, in order."""
    import timm

    return timm.create_model("test_resnet", num_classes=sum(HEADS.values()))


@lru_cache(maxsize=1)
def _attribute_network() -> tuple[Any, dict[str, NDArray[np.float64]]]:
    from safetensors.torch import load_file

    state = load_file(attributes_folder() / "attributes.safetensors")
    confusion = {
        key.removeprefix("confusion."): state.pop(key).double().numpy()
        for key in sorted(state)
        if key.startswith("confusion.")
    }
    network = new_attribute_network()
    network.load_state_dict(state)
    return network.float().eval().requires_grad_(False), confusion


def predict_attributes(images: NDArray[np.uint8], network: Any | None = None) -> dict[str, NDArray[np.int64]]:
    """Return the predicted shape, texture, scene, light and weather of pictures (n, 3, 64, 64)."""
    import torch

    model = _attribute_network()[0] if network is None else network
    with torch.no_grad():
        logits = torch.cat([model((part - _MEAN) / _STD) for part in _batches(images)])
    heads = logits.split(list(HEADS.values()), dim=1)
    return {name: head.argmax(1).numpy() for name, head in zip(HEADS, heads, strict=True)}


def attribute_confusion() -> dict[str, NDArray[np.float64]]:
    """Return, per head, the matrix P(predicted | true) of the shipped classifier on the balanced world."""
    return _attribute_network()[1]


def confusion_of(network: Any, images: NDArray[np.uint8], truth: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Return, per head, the matrix P(predicted | true) of a network on pictures with known causes."""
    predicted = predict_attributes(images, network)
    return {name: _rows(truth[name], predicted[name], size, size) for name, size in HEADS.items()}


def _rows(rows: NDArray[np.int64], columns: NDArray[np.int64], n: int, m: int) -> NDArray[np.float64]:
    """Return P(column | row) as an (n, m) matrix; a row that never occurs is nan."""
    counts = np.zeros((n, m))
    np.add.at(counts, (rows, columns), 1)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)


def generated_correlation(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, float]:
    """Estimate the dose rho between class and texture, scene, light and weather in pictures of any origin.

    Under a dose rho, class c shows attribute a with probability rho [a = partner(c)] + (1 - rho) q(a) for some q.
    Subtracting the mean over classes removes q; the classifier's confusion matrix M maps the rest to predictions:
    P(b | c) - mean_c P(b | c) = rho (M[partner(c), b] - mean_c M[partner(c), b]). rho is the least-squares slope.

    Args:
        images: (n, 3, 64, 64) uint8.
        labels: (n,) class indices the pictures were made for; at least two classes.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("a correlation with the class needs pictures of at least two classes")
    confusion = _attribute_network()[1]
    predicted = predict_attributes(images)
    doses = {}
    for name, partner in PARTNERS.items():
        seen = _rows(labels, predicted[name], len(SHAPES), HEADS[name])
        present = ~np.isnan(seen[:, 0])
        expected = confusion[name][partner(np.arange(len(SHAPES)))][present]
        expected = expected - expected.mean(0)
        observed = seen[present] - seen[present].mean(0)
        doses[name] = float((observed * expected).sum() / (expected**2).sum())
    return doses


def _batches(images: NDArray[np.uint8], size: int = 200) -> list[torch.Tensor]:
    import torch

    return [torch.from_numpy(images[i : i + size]).float() / 255 for i in range(0, len(images), size)]
