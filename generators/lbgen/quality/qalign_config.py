"""Shape of a Q-ALIGN model, read strictly from its config.json, and the parameter count that follows from it.

Q-ALIGN (Wu et al., ICML 2024) is mPLUG-Owl2 (Ye et al., CVPR 2024): a ViT, a visual abstractor, and a LLaMA-2
decoder with modality-adaptive modules. Defaults are the published size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.api import DataMissing, UserError, parse_json, refuse_malformed


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the ViT; lengths in pixels or channels."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    layer_norm_eps: float = 1e-6

    @property
    def positions(self) -> int:
        """Return the number of output tokens: the patches and one class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    def parameters(self) -> int:
        """Return the number of parameters of the ViT."""
        d, m = self.hidden_size, self.intermediate_size
        layer = _linear(d, 3 * d) + _linear(d, d) + _linear(d, m) + _linear(m, d) + 2 * (2 * d)
        stem = d + 3 * self.patch_size**2 * d + self.positions * d + 2 * d
        return stem + self.num_hidden_layers * layer + 2 * d


@dataclass(frozen=True)
class AbstractorConfig:
    """Shape of the visual abstractor, which turns ViT tokens into a fixed number of visual embeddings."""

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_learnable_queries: int = 64
    encoder_hidden_size: int = 1024
    grid_size: int = 32
    layer_norm_eps: float = 1e-6

    def parameters(self, language_size: int) -> int:
        """Return the number of parameters, projection to the language width and end vector included."""
        d, m = self.hidden_size, self.intermediate_size
        attention = 4 * _linear(d, d) + 3 * (2 * d)
        mlp = 2 * _linear(d, m) + _linear(m, d) + 2 * m
        ends = self.num_learnable_queries * d + _linear(d, language_size) + language_size
        return self.num_hidden_layers * (attention + mlp) + ends


@dataclass(frozen=True)
class QAlignConfig:
    """Shape of the whole model."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    vision: VisionConfig = field(default_factory=VisionConfig)
    abstractor: AbstractorConfig = field(default_factory=AbstractorConfig)

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together."""
        for part in (self, self.vision, self.abstractor):
            if part.hidden_size % part.num_attention_heads:
                raise _bad_config(f"width {part.hidden_size} is not a multiple of {part.num_attention_heads} heads")
        a, v = self.abstractor, self.vision
        if not a.hidden_size == a.encoder_hidden_size == v.hidden_size:
            raise _bad_config("abstractor and ViT widths differ, but the abstractor attends to both at once")
        if a.grid_size**2 + 1 != v.positions:
            raise _bad_config(f"grid_size {a.grid_size} does not match the {v.positions} positions of the ViT")

    @property
    def visual_embeddings(self) -> int:
        """Return the number of visual embeddings in the sequence: the queries and one end vector."""
        return self.abstractor.num_learnable_queries + 1

    def parameters(self) -> int:
        """Return the number of parameters of the whole model, by arithmetic."""
        d, m = self.hidden_size, self.intermediate_size
        # Key, value and both norms exist once per modality; query, output and MLP are shared.
        layer = 2 * d * d + 2 * (2 * d * d) + 3 * d * m + 2 * (2 * d)
        decoder = 2 * self.vocab_size * d + self.num_hidden_layers * layer + d
        return decoder + self.vision.parameters() + self.abstractor.parameters(d)


_MOST_LAYERS = 1000


def read_config(folder: Path) -> QAlignConfig:
    """Read config.json of a model folder and refuse features that the forward pass here does not have.

    Args:
        folder: Model folder.

    Returns:
        The shape of the model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise DataMissing(f"no config.json in {folder}", "the folder is not a Q-ALIGN model", "give the model's folder")
    with refuse_malformed(path, "restore the published config.json"):
        config = parse_config(parse_json(path.read_text(encoding="utf-8")))
        layers = (config.num_hidden_layers, config.vision.num_hidden_layers, config.abstractor.num_hidden_layers)
        if not all(0 < number <= _MOST_LAYERS for number in layers):
            raise ValueError(f"{max(layers)} layers")
        return config


def parse_config(raw: Mapping[str, Any]) -> QAlignConfig:
    """Turn the content of a config.json into a `QAlignConfig`.

    Args:
        raw: Parsed JSON.

    Returns:
        The shape of the model.
    """
    if raw.get("model_type") != "mplug_owl2":
        raise _bad_config(f"model_type is {raw.get('model_type')!r}, not 'mplug_owl2'")
    visual = raw.get("visual_config") or {}
    vision, abstractor = visual.get("visual_model") or {}, visual.get("visual_abstractor") or {}
    _require(raw, "hidden_act", "silu")
    _require(raw, "rope_scaling", None)
    _require(raw, "attention_bias", False)
    _require(raw, "tie_word_embeddings", False)
    _require(raw, "num_key_value_heads", raw.get("num_attention_heads"))
    _require(vision, "hidden_act", "quick_gelu")
    missing = [key for key in ("hidden_size", "num_hidden_layers", "rms_norm_eps") if key not in raw]
    if missing:
        raise _bad_config(f"keys missing: {', '.join(missing)}")
    return QAlignConfig(
        vision=VisionConfig(**_known(VisionConfig, vision)),
        abstractor=AbstractorConfig(**_known(AbstractorConfig, abstractor)),
        **_known(QAlignConfig, raw),
    )


def _known(kind: type[Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are fields; a null keeps the default, as the published code reads it."""
    names = {f.name for f in fields(kind)} - {"vision", "abstractor"}
    return {key: value for key, value in raw.items() if key in names and value is not None}


def _require(raw: Mapping[str, Any], key: str, value: object) -> None:
    if raw.get(key) is not None and raw[key] != value:
        raise _bad_config(f"{key} is {raw[key]!r}, only {value!r} is implemented")


def _bad_config(why: str) -> UserError:
    return UserError("unsupported Q-ALIGN config", why, "use a model of the published mPLUG-Owl2 architecture")


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
