"""The operator bridge against slow, obvious NumPy versions."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from suites.perception import bridge

Floats = npt.NDArray[np.float64]
CASES = [(ratio, aligned) for ratio in (0, 2) for aligned in (True, False)]
ROIS = np.array([
    [0, 1.2, 2.3, 9.7, 8.1], [1, 0, 0, 30, 22], [0, -6, -4, 5, 7], [1, 20, 10, 50, 40], [0, 12.5, 3.5, 13.0, 4.0],
])  # fmt: skip


def sample_weights(y: float, x: float, height: int, width: int) -> Floats:
    """Return the bilinear weights of one point, (height, width); all zero more than one pixel outside."""
    weights = np.zeros((height, width))
    if y < -1 or y > height or x < -1 or x > width:
        return weights
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    down, right = (y - top if top < height - 1 else 0.0), (x - left if left < width - 1 else 0.0)
    for row, share in ((top, 1 - down), (top + 1, down)):
        for column, part in ((left, 1 - right), (left + 1, right)):
            if share * part:
                weights[row, column] += share * part
    return weights


def pooling_weights(roi: Floats, size: int, scale: float, ratio: int, aligned: bool, shape: tuple[int, int]) -> Floats:
    """Return what every pixel contributes to every bin of one RoI, (size, size, height, width)."""
    x0, y0, x1, y1 = roi[1:] * scale - (0.5 if aligned else 0.0)
    wide, high = x1 - x0, y1 - y0
    if not aligned:
        wide, high = max(wide, 1.0), max(high, 1.0)
    points_x = ratio or int(np.ceil(wide / size))
    points_y = ratio or int(np.ceil(high / size))
    result = np.zeros((size, size, *shape))
    for i in range(size):
        for j in range(size):
            for a in range(points_y):
                for b in range(points_x):
                    y = y0 + (i + (a + 0.5) / points_y) * high / size
                    x = x0 + (j + (b + 0.5) / points_x) * wide / size
                    result[i, j] += sample_weights(y, x, *shape)
    return result / max(points_x * points_y, 1)


def call_forward(features: torch.Tensor, rois: torch.Tensor, size: int, **keywords: Any) -> torch.Tensor:
    """Call the bridge as mmcv does: results are written into the third argument."""
    output = features.new_zeros(len(rois), features.shape[1], size, size)
    none = features.new_zeros(0)
    bridge.roi_align_forward(
        features, rois, output, none, none, aligned_height=size, aligned_width=size, pool_mode=1, **keywords
    )
    return output


@pytest.mark.parametrize(("ratio", "aligned"), CASES)
def test_roi_align_and_its_gradient_equal_numpy_pooling(ratio: int, aligned: bool) -> None:
    """Forward and gradient equal the NumPy pooling for both sampling modes and both alignments."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 3, 11, 14))
    size, scale = 3, 0.5
    weights = [pooling_weights(roi, size, scale, ratio, aligned, (11, 14)) for roi in ROIS]
    expected = np.stack(
        [np.einsum("ijhw,chw->cij", w, features[int(roi[0])]) for w, roi in zip(weights, ROIS, strict=True)]
    )
    keywords = {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
    tensor, rois = torch.tensor(features, dtype=torch.float32), torch.tensor(ROIS, dtype=torch.float32)
    found = call_forward(tensor, rois, size, **keywords)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)

    grad = rng.standard_normal(expected.shape)
    back = np.zeros_like(features)
    for w, roi, g in zip(weights, ROIS, grad, strict=True):
        back[int(roi[0])] += np.einsum("ijhw,cij->chw", w, g)
    none, grad_input = tensor.new_zeros(0), torch.zeros_like(tensor)
    bridge.roi_align_backward(
        torch.tensor(grad, dtype=torch.float32), rois, none, none, grad_input,
        aligned_height=size, aligned_width=size, pool_mode=1, **keywords,
    )  # fmt: skip
    np.testing.assert_allclose(grad_input.numpy(), back, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_operators_of_half_types_compute_in_float32(dtype: torch.dtype) -> None:
    """Half types compute in float32: the result is the rounded float32 result, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 11, 14, generator=generator).to(dtype)
    rois = torch.tensor(ROIS, dtype=torch.float32)
    keywords = {"spatial_scale": 0.5, "sampling_ratio": 0, "aligned": True}
    found = call_forward(features, rois.to(dtype), 3, **keywords)
    wide = call_forward(features.float(), rois.to(dtype).float(), 3, **keywords)
    assert found.dtype == dtype and torch.equal(found, wide.to(dtype))
    grads = []
    for kind in (dtype, torch.float32):
        grad_input, none = torch.zeros_like(features, dtype=kind), torch.zeros(0)
        bridge.roi_align_backward(
            found.to(kind), rois.to(dtype).to(kind), none, none, grad_input,
            aligned_height=3, aligned_width=3, pool_mode=1, **keywords,
        )  # fmt: skip
        grads.append(grad_input)
    assert torch.equal(grads[0], grads[1].to(dtype)) and grads[0].abs().sum() > 0


def greedy_nms(boxes: Floats, order: npt.NDArray[np.int64], threshold: float, offset: int) -> list[int]:
    """Keep the best remaining box and drop what overlaps it, in the given order."""
    kept: list[int] = []
    size = boxes[:, 2:] - boxes[:, :2] + offset
    for index in order:
        corner = np.minimum(boxes[index, 2:], boxes[kept, 2:]) - np.maximum(boxes[index, :2], boxes[kept, :2])
        overlap = np.maximum(corner + offset, 0).prod(axis=1)
        union = size[index].prod() + size[kept].prod(axis=1) - overlap
        if not np.any(overlap / union > threshold):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_keeps_tied_boxes_in_torchs_sort_order(offset: int) -> None:
    """With many tied scores the kept indices follow torch's default descending sort, as mmcv's do."""
    rng = np.random.default_rng(1)
    differs_from_stable = 0
    for _ in range(60):
        corner = rng.integers(0, 60, (200, 2))
        boxes = np.concatenate([corner, corner + rng.integers(4, 40, (200, 2))], axis=1).astype(np.float64)
        scores = torch.tensor(rng.integers(0, 6, 200) / 8, dtype=torch.float32)
        order = scores.sort(descending=True).indices
        found = bridge.nms(torch.tensor(boxes, dtype=torch.float32), scores, 0.51, offset).tolist()
        assert found == greedy_nms(boxes, order.numpy(), 0.51, offset)
        stable = scores.sort(descending=True, stable=True).indices
        differs_from_stable += found != greedy_nms(boxes, stable.numpy(), 0.51, offset)
    if not torch.equal(order, stable):
        assert differs_from_stable > 0


def test_nms_of_no_boxes_keeps_none() -> None:
    """No boxes, no indices."""
    assert bridge.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_operators_equal_a_compiled_mmcv_where_there_is_one() -> None:
    """Where a compiled mmcv is present, both operators equal it exactly, ties included."""
    if importlib.util.find_spec("mmcv") is None or importlib.util.find_spec("mmcv._ext") is None:
        pytest.skip("no compiled mmcv here: mmcv._ext is not installed")
    extension = importlib.import_module("mmcv._ext")
    rng = np.random.default_rng(2)
    for _ in range(20):
        corner = torch.tensor(rng.integers(0, 60, (300, 2)), dtype=torch.float32)
        boxes = torch.cat([corner, corner + torch.tensor(rng.integers(4, 40, (300, 2)))], dim=1)
        scores = torch.tensor(rng.integers(0, 6, 300) / 8, dtype=torch.float32)
        theirs = extension.nms(boxes, scores, iou_threshold=0.5, offset=0)
        assert torch.equal(bridge.nms(boxes, scores, 0.5, 0), theirs)
    features, rois = torch.randn(2, 3, 11, 14), torch.tensor(ROIS, dtype=torch.float32)
    keywords = {"spatial_scale": 0.5, "sampling_ratio": 0, "aligned": True}
    output, none = torch.zeros(len(ROIS), 3, 3, 3), torch.zeros(0)
    extension.roi_align_forward(
        features, rois, output, none, none, aligned_height=3, aligned_width=3, pool_mode=1, **keywords
    )
    assert torch.equal(call_forward(features, rois, 3, **keywords), output)


def test_unknown_operators_resolve_and_name_themselves_when_called() -> None:
    """Any public name resolves; calling an unknown one names it; dunder names do not resolve."""
    module = bridge.operator_module()
    assert module.__spec__ is not None and module.__spec__.name == "mmcv._ext"
    assert module.nms is bridge.nms
    with pytest.raises(NotImplementedError, match="softnms"):
        module.softnms(torch.zeros(1, 4))
    with pytest.raises(AttributeError):
        _ = module.__path__
    with pytest.raises(NotImplementedError, match="max"):
        call = {"spatial_scale": 1.0, "sampling_ratio": 0, "aligned": True, "aligned_height": 1, "aligned_width": 1}
        bridge.roi_align_forward(*(torch.zeros(1, 5) for _ in range(5)), pool_mode=0, **call)
