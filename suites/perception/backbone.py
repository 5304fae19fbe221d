"""Load a classification backbone into a toolbox strictly: no tensor missing, none left over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.api import UserError, check_state
from suites.perception.arches import ARCHES, Arch, unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
CLASSIFIER = "fc."


def resolve(arch: str) -> Arch:
    """Return the description of ``arch`` or refuse it with the reason."""
    reason = unsupported(arch)
    if reason is not None:
        raise UserError(f"perception cannot use backbone '{arch}'", reason, "choose a plain ResNet backbone")
    return ARCHES[arch]


def toolbox_state(state: Mapping[str, Tensor], arch: Arch) -> dict[str, Tensor]:
    """Strip wrapper prefixes, drop the classifier, rename the stem.

    Args:
        state: State dict of the classification network, on any device.
        arch: Target description.

    Returns:
        Tensors under the toolbox backbone's names, on the CPU.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = _strip(key)
        if name.startswith(CLASSIFIER):
            continue
        for source, target in arch.stem_map.items():
            if name.startswith(source):
                name = target + name[len(source) :]
                break
        if name in result:
            raise UserError("backbone checkpoint is ambiguous", f"two tensors map to '{name}'", "keep one copy")
        result[name] = tensor.detach().cpu()
    return result


def _strip(key: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if key.startswith(prefix):
                key, stripped = key[len(prefix) :], True
    return key


def check_strict(state: Mapping[str, Tensor], module: nn.Module) -> None:
    """Refuse a state dict whose keys or shapes are not exactly the module's.

    mmengine loads non-strictly and only logs what did not fit; this check stands in front of it.
    """
    fix = "give the architecture the checkpoint was trained with (plain ResNet, not a c or d variant)"
    check_state(state, module.state_dict(), f"the backbone checkpoint ({type(module).__name__})", fix)


def register_resnet(registry: Any, base: type[Any]) -> None:
    """Register ``HarnessResNet`` in a toolbox: its ResNet plus depth 10 and a learned pooling in the stem.

    Args:
        registry: The toolbox's model registry.
        base: The toolbox's own ResNet class.
    """
    if registry.get("HarnessResNet") is None:
        registry.register_module(name="HarnessResNet", module=_resnet_class(base))


def _resnet_class(base: type[Any]) -> type[Any]:
    from mmcv.cnn import build_conv_layer, build_norm_layer
    from torch import nn

    class HarnessResNet(base):
        """ResNet whose stem pools by a strided 3x3 convolution (timm's ``replace_stem_pool``)."""

        arch_settings: ClassVar[dict[int, Any]] = {**base.arch_settings, 10: (base.arch_settings[18][0], (1, 1, 1, 1))}

        def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
            super()._make_stem_layer(in_channels, stem_channels)
            self.maxpool = nn.Sequential(
                build_conv_layer(
                    self.conv_cfg,
                    stem_channels,
                    stem_channels,
                    kernel_size=3,
                    stride=2,
                    padding=1,
                    bias=False,
                ),
                build_norm_layer(self.norm_cfg, stem_channels)[1],
                nn.ReLU(inplace=True),
            )

        def _freeze_stages(self) -> None:
            super()._freeze_stages()
            if self.frozen_stages >= 0:
                self.maxpool.eval()
                self.maxpool.requires_grad_(False)

    return HarnessResNet


def frozen_keys(arch: Arch, frozen_stages: int) -> tuple[str, ...]:
    """Return the key prefixes that a run with ``frozen_stages`` must leave bit-identical."""
    if frozen_stages < 0:
        return ()
    stem = ("stem.", "maxpool.") if arch.stem_map else ("conv1.", "bn1.")
    return (*stem, *(f"layer{i}." for i in range(1, frozen_stages + 1)))


def save_backbone(tensors: Mapping[str, Tensor], out: Path) -> Path:
    """Write the clean backbone file that the toolbox's ``init_cfg`` points to; return its absolute path."""
    import torch

    path = (out / "backbone.pth").resolve()
    torch.save(dict(tensors), path)
    return path


def save_weights(model: nn.Module, out: Path) -> None:
    """Write a trained model as ``weights.safetensors``."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, out / "weights.safetensors")
