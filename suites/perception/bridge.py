"""Supply mmcv's compiled operators from torchvision.

mmcv-lite ships the Python half of ``mmcv.ops`` only; importing it insists on an extension module
``mmcv._ext`` with 112 names. Mask R-CNN calls three of them (nms, roi_align forward and backward), UperNet
none. ``install`` puts a module of that name in place before any toolbox is imported. Sources: mmcv 2.1.0
operator signatures; torchvision operators of the same names.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.api import UserError

if TYPE_CHECKING:
    from torch import Tensor

EXTENSION = "mmcv._ext"
TOOLBOXES = ("mmcv", "mmengine", "mmdet", "mmseg", "pycocotools")
INSTALL = "install the extra 'perception' (mmcv-lite 2.1.0, mmengine 0.10.7, mmdet 3.3.0, mmsegmentation 1.2.2)"
_POOL_AVERAGE = 1
_provenance: dict[str, str] = {}


class OperatorModule(ModuleType):
    """Stand for ``mmcv._ext``: any public name resolves, unknown operators fail only when they are called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def unsupported(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"mmcv operator '{name}' is not supplied by the torchvision bridge")

        unsupported.__name__ = name
        return unsupported


def missing_packages() -> tuple[str, ...]:
    """List the packages of the perception extra that are not installed, without importing them."""
    return tuple(name for name in TOOLBOXES if importlib.util.find_spec(name) is None)


def install() -> str:
    """Make ``mmcv.ops`` importable and return where its operators come from.

    Returns:
        ``"mmcv <version>"`` when a compiled extension is present, else ``"torchvision <version>"``.

    Raises:
        UserError: A package of the perception extra is missing.
    """
    missing = missing_packages()
    if missing:
        raise UserError(
            "perception needs packages that are not installed",
            f"missing: {', '.join(missing)}",
            INSTALL,
        )
    if "ops" not in _provenance:
        _provenance["ops"] = _install()
    return _provenance["ops"]


def _install() -> str:
    import mmcv

    if importlib.util.find_spec(EXTENSION) is not None:
        return f"mmcv {mmcv.__version__}"
    import torchvision

    module = operator_module()
    sys.modules[EXTENSION] = module
    mmcv._ext = module
    return f"torchvision {torchvision.__version__}"


def operator_module() -> OperatorModule:
    """Build the extension module with the three operators that the two models call."""
    module = OperatorModule(EXTENSION, "mmcv operators over torchvision")
    # mmengine asks importlib for the spec of this module; a None spec makes it raise.
    module.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, loader=None, origin="torchvision bridge")
    module.__dict__.update(nms=nms, roi_align_forward=roi_align_forward, roi_align_backward=roi_align_backward)
    return module


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Suppress overlapping boxes greedily, in mmcv's order of tied scores.

    mmcv sorts with torch's default descending sort, torchvision with a stable one, so scores are sorted here
    and torchvision sees strictly decreasing surrogates (exact in float32 below 2**24 boxes).

    Args:
        boxes: (n, 4) corners x1, y1, x2, y2.
        scores: (n,) any order, ties allowed.
        iou_threshold: A box is dropped when its IoU with a kept one is larger.
        offset: 1 for the legacy convention in which a box includes its last pixel.

    Returns:
        Indices of the kept boxes by descending score, int64.
    """
    import torch
    import torchvision  # noqa: F401  (registers torch.ops.torchvision)

    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    order = scores.sort(descending=True).indices
    corners = boxes.float()[order]
    if offset:
        corners = corners + corners.new_tensor([0.0, 0.0, float(offset), float(offset)])
    surrogate = torch.arange(len(order), 0, -1, dtype=torch.float32, device=boxes.device)
    return order[torch.ops.torchvision.nms(corners, surrogate, float(iou_threshold))]


def _require_average(pool_mode: int) -> None:
    if pool_mode != _POOL_AVERAGE:
        raise NotImplementedError("mmcv operator 'roi_align' (max pooling) is not supplied by the bridge")


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average-pool each RoI into ``output`` (n, c, h, w) by bilinear sampling; half types in float32."""
    import torch
    import torchvision  # noqa: F401

    _require_average(pool_mode)
    # Not the Python wrapper: that turns to a slow path in deterministic mode.
    pooled = torch.ops.torchvision.roi_align(
        _widen(input),
        rois.to(_widen(input).dtype),
        spatial_scale,
        aligned_height,
        aligned_width,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of ``roi_align_forward`` for its input into ``grad_input`` (b, c, h, w)."""
    import torch
    import torchvision  # noqa: F401

    _require_average(pool_mode)
    grad = _widen(grad_output)
    batch, channels, height, width = grad_input.shape
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois.to(grad.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            batch,
            channels,
            height,
            width,
            sampling_ratio,
            aligned,
        )
    )


def _widen(tensor: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32: torchvision has no backward kernel for them."""
    import torch

    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
