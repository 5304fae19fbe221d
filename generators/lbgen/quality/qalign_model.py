"""Decoder of Q-ALIGN and the whole model: pixels in, vocabulary logits of the last position out.

A LLaMA-2 decoder with modality-adaptive modules (mPLUG-Owl2, Ye et al., CVPR 2024): key and value projections
and both norms of a layer exist twice, index 0 for text and 1 for visual positions; query, output and
perceptron are shared. Module names spell the keys of the published state dict. There is no cache and no
padding: one prompt, one pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.lbgen.quality.levels import BOS_TOKEN_ID, TOKENS_AFTER_IMAGE, TOKENS_BEFORE_IMAGE
from generators.lbgen.quality.qalign_config import QAlignConfig
from generators.lbgen.quality.qalign_vision import Linear, VisionModel, VisualAbstractor

Span = tuple[int, int]


class RmsNorm(nn.Module):
    """Root-mean-square norm, computed in fp32 or wider."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)


class Multiway(nn.Module):
    """Two modules of one shape: the first for text positions, the second for the visual span."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.multiway = nn.ModuleList([make(), make()])

    def forward(self, x: Tensor, visual: Span) -> Tensor:
        """Map (B, L, in) to (B, L, out); positions visual[0] to visual[1] - 1 take the second module."""
        start, stop = visual
        text = self.multiway[0](torch.cat([x[:, :start], x[:, stop:]], dim=1))
        return torch.cat([text[:, :start], self.multiway[1](x[:, start:stop]), text[:, start:]], dim=1)


def rotary_tables(length: int, head_width: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (length, head width) of the rotary positions, both halves of a head alike."""
    rates = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float32, device=like.device) / head_width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=like.device), rates).repeat(1, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to (B, heads, L, head width); a channel pairs with the one half a head away."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class DecoderAttention(nn.Module):
    """Causal self-attention with key and value per modality."""

    def __init__(self, cfg: QAlignConfig) -> None:
        super().__init__()
        width = cfg.hidden_size
        self.heads = cfg.num_attention_heads
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Multiway(lambda: Linear(width, width, bias=False))
        self.v_proj = Multiway(lambda: Linear(width, width, bias=False))
        self.o_proj = Linear(width, width, bias=False)

    def forward(self, x: Tensor, visual: Span, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        query, key, value = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.q_proj(x), self.k_proj(x, visual), self.v_proj(x, visual))
        )
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out


class DecoderMlp(nn.Module):
    """Gated perceptron, shared by both modalities."""

    def __init__(self, cfg: QAlignConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.up_proj = Linear(cfg.hidden_size, cfg.intermediate_size, bias=False)
        self.down_proj = Linear(cfg.intermediate_size, cfg.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer with norms per modality."""

    def __init__(self, cfg: QAlignConfig) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(cfg)
        self.mlp = DecoderMlp(cfg)
        self.input_layernorm = Multiway(lambda: RmsNorm(cfg.hidden_size, cfg.rms_norm_eps))
        self.post_attention_layernorm = Multiway(lambda: RmsNorm(cfg.hidden_size, cfg.rms_norm_eps))

    def forward(self, x: Tensor, visual: Span, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        x = x + self.self_attn(self.input_layernorm(x, visual), visual, cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x, visual))
        return out


class TokenTable(nn.Embedding):
    """Token embeddings without random initialisation."""

    def reset_parameters(self) -> None:
        """Leave the weights as allocated."""


class OwlModel(nn.Module):
    """Everything but the vocabulary head."""

    def __init__(self, cfg: QAlignConfig) -> None:
        super().__init__()
        self.embed_tokens = TokenTable(cfg.vocab_size, cfg.hidden_size)
        self.vision_model = VisionModel(cfg.vision)
        self.visual_abstractor = VisualAbstractor(cfg.abstractor, cfg.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(cfg) for _ in range(cfg.num_hidden_layers)])
        self.norm = RmsNorm(cfg.hidden_size, cfg.rms_norm_eps)


class QAlignModel(nn.Module):
    """mPLUG-Owl2 with the frozen quality prompt of Q-ALIGN.

    Args:
        cfg: Shape of the model.
    """

    def __init__(self, cfg: QAlignConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = OwlModel(cfg)
        self.lm_head = Linear(cfg.hidden_size, cfg.vocab_size, bias=False)

    @property
    def visual_span(self) -> Span:
        """Return the first visual position and the one behind the last."""
        start = 1 + len(TOKENS_BEFORE_IMAGE)
        return start, start + self.cfg.visual_embeddings

    def embed(self, pixels: Tensor) -> Tensor:
        """Lay out beginning-of-text, first chunk, visual embeddings and second chunk.

        Args:
            pixels: (B, 3, S, S) normalised.

        Returns:
            (B, 1 + 14 + visual embeddings + 12, width): 92 positions at the published size.
        """
        visual = self.model.visual_abstractor(self.model.vision_model(pixels))
        ids = torch.tensor((BOS_TOKEN_ID, *TOKENS_BEFORE_IMAGE, *TOKENS_AFTER_IMAGE), device=pixels.device)
        text = self.model.embed_tokens(ids).expand(len(pixels), -1, -1)
        start = self.visual_span[0]
        return torch.cat([text[:, :start], visual, text[:, start:]], dim=1)

    def decode(self, embeddings: Tensor) -> Tensor:
        """Run the causal decoder on (B, L, width) and return normed hidden states (B, L, width)."""
        cfg = self.cfg
        cos, sin = rotary_tables(
            embeddings.shape[1], cfg.hidden_size // cfg.num_attention_heads, cfg.rope_theta, embeddings
        )
        x = embeddings
        for layer in self.model.layers:
            x = layer(x, self.visual_span, cos, sin)
        out: Tensor = self.model.norm(x)
        return out

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) normalised pixels to (B, vocabulary) logits of the last position."""
        out: Tensor = self.lm_head(self.decode(self.embed(pixels))[:, -1])
        return out


def build_on_meta(cfg: QAlignConfig) -> QAlignModel:
    """Build the model without memory for its weights, frozen and in evaluation mode.

    Args:
        cfg: Shape of the model; the default is the published size.

    Returns:
        The model on the meta device; its parameter count has been checked against `cfg.parameters()`.
    """
    with torch.device("meta"):
        model = QAlignModel(cfg)
    count = sum(p.numel() for p in model.parameters())
    if count != cfg.parameters():
        raise AssertionError(f"the model has {count} parameters, its config implies {cfg.parameters()}")
    return model.eval().requires_grad_(False)
