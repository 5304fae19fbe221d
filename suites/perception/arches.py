"""Say which classification networks the two toolboxes can take as backbone, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arch:
    """Describe one supported backbone.

    Attributes:
        name: timm name, or the harness's name of a small relative.
        type: Registered name in both toolboxes; the V1c and V1d variants are never used.
        arguments: Constructor arguments beyond the recipe's.
        channels: Channels of the four stages' outputs.
        stem_map: Key prefixes of the classification network -> prefixes in the toolbox; empty for equal keys.
    """

    name: str
    type: str
    arguments: Mapping[str, Any]
    channels: tuple[int, int, int, int]
    stem_map: Mapping[str, str] = field(default_factory=dict)


_NARROW, _WIDE = (64, 128, 256, 512), (256, 512, 1024, 2048)

# timm's deep stem is conv1.{0,1,3,4,6} + bn1, the toolboxes' is one sequence stem.{0,1,3,4,6,7}. The learned
# pooling (convolution, norm, ReLU in place of the max-pool) keeps its name.
_RESNET10 = Arch(
    name="resnet10",
    type="HarnessResNet",
    arguments={"depth": 10, "deep_stem": True, "stem_channels": 64, "base_channels": 32},
    channels=(32, 64, 128, 256),
    stem_map={"conv1.": "stem.", "bn1.": "stem.7."},
)

ARCHES: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        _RESNET10,
        *(Arch(f"resnet{d}", "ResNet", {"depth": d}, _NARROW) for d in (18, 34)),
        *(Arch(f"resnet{d}", "ResNet", {"depth": d}, _WIDE) for d in (50, 101, 152)),
    )
}


def unsupported(arch: str) -> str | None:
    """Return why perception cannot run on ``arch``, or None when it can."""
    if arch in ARCHES:
        return None
    if any(word in arch for word in ("vit", "deit", "swin", "beit", "eva", "mixer")):
        return "perception is planned for convolutional backbones"
    return f"no key mapping from '{arch}' to the detection toolboxes (supported: {', '.join(sorted(ARCHES))})"
