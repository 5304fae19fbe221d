"""Visual half of Q-ALIGN: the ViT and the abstractor that condenses its tokens into visual embeddings.

Architecture facts from mPLUG-Owl2 (Ye et al., CVPR 2024). Module names spell the keys of the published state
dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.lbgen.quality.qalign_config import AbstractorConfig, VisionConfig

# The published abstractor leaves these norms at the framework default, unlike the configured one of its MLP.
ABSTRACTOR_NORM_EPS = 1e-5


class Linear(nn.Linear):
    """Linear layer without random initialisation: every weight of the model comes from a file."""

    def reset_parameters(self) -> None:
        """Leave the weights as allocated."""


class PatchConv(nn.Conv2d):
    """Convolution without random initialisation."""

    def reset_parameters(self) -> None:
        """Leave the weights as allocated."""


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Run full attention on (B, heads, L, head width) and return (B, L, width)."""
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class VisionEmbeddings(nn.Module):
    """Turn pixels into patch tokens with a class token and learned positions."""

    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, cfg.hidden_size))
        self.patch_embed = PatchConv(3, cfg.hidden_size, cfg.patch_size, stride=cfg.patch_size, bias=False)
        self.position_embedding = nn.Parameter(torch.empty(1, cfg.positions, cfg.hidden_size))
        self.pre_layernorm = nn.LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, positions, width)."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        out: Tensor = self.pre_layernorm(tokens + self.position_embedding)
        return out


class VisionAttention(nn.Module):
    """Self-attention whose joint projection is laid out head by head: (heads, 3, head width)."""

    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.heads = cfg.num_attention_heads
        self.query_key_value = Linear(cfg.hidden_size, 3 * cfg.hidden_size)
        self.dense = Linear(cfg.hidden_size, cfg.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        joint = self.query_key_value(x).unflatten(-1, (self.heads, 3, -1))
        query, key, value = joint.permute(3, 0, 2, 1, 4).unbind(0)
        out: Tensor = self.dense(_attend(query, key, value))
        return out


class VisionMlp(nn.Module):
    """Two-layer perceptron with the sigmoid approximation of GELU."""

    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.fc1 = Linear(cfg.hidden_size, cfg.intermediate_size)
        self.fc2 = Linear(cfg.intermediate_size, cfg.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        hidden = self.fc1(x)
        out: Tensor = self.fc2(hidden * torch.sigmoid(1.702 * hidden))
        return out


class VisionLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.self_attn = VisionAttention(cfg)
        self.input_layernorm = nn.LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps)
        self.mlp = VisionMlp(cfg)
        self.post_attention_layernorm = nn.LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, L, width)."""
        x = x + self.self_attn(self.input_layernorm(x))
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Stack(nn.Module):
    """Hold layers under the name that the state dict uses."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class VisionModel(nn.Module):
    """ViT that returns every token, the class token first, after the last norm."""

    def __init__(self, cfg: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(cfg)
        self.encoder = Stack([VisionLayer(cfg) for _ in range(cfg.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, positions, width)."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        out: Tensor = self.post_layernorm(x)
        return out


def sincos_1d(width: int, places: Tensor) -> Tensor:
    """Return the sine-cosine table of places, sines first.

    Args:
        width: Channels, even.
        places: (M,) coordinates.

    Returns:
        (M, width) in fp32.
    """
    omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64, device="cpu") / (width / 2))
    angles = places.to(torch.float64)[:, None] * omega[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_2d(width: int, grid: int) -> Tensor:
    """Return the position table of a square map behind a zero row for the class token, columns before rows.

    Args:
        width: Channels, a multiple of four.
        grid: Side of the map.

    Returns:
        (1 + grid * grid, width) in fp32.
    """
    line = torch.arange(grid, device="cpu")
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    table = torch.cat([sincos_1d(width // 2, columns.flatten()), sincos_1d(width // 2, rows.flatten())], dim=1)
    return torch.cat([torch.zeros(1, width, device="cpu"), table])


class AbstractorAttention(nn.Module):
    """Attention of queries to themselves and the ViT tokens, with fixed positions on query and key only."""

    q_pos_embed: Tensor
    k_pos_embed: Tensor

    def __init__(self, cfg: AbstractorConfig) -> None:
        super().__init__()
        self.heads, self.grid = cfg.num_attention_heads, cfg.grid_size
        self.query = Linear(cfg.hidden_size, cfg.hidden_size)
        self.key = Linear(cfg.hidden_size, cfg.hidden_size)
        self.value = Linear(cfg.hidden_size, cfg.hidden_size)
        self.register_buffer("q_pos_embed", torch.empty(cfg.num_learnable_queries, cfg.hidden_size))
        self.register_buffer("k_pos_embed", torch.empty(cfg.grid_size**2 + 1, cfg.hidden_size))

    def position_tables(self) -> dict[str, Tensor]:
        """Return the tables that a state dict may leave out, by buffer name."""
        count, width = self.q_pos_embed.shape
        return {
            "q_pos_embed": sincos_1d(width, torch.arange(count, device="cpu")),
            "k_pos_embed": sincos_2d(width, self.grid),
        }

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Map queries (B, Q, width) and ViT tokens (B, P, width) to (B, Q, width)."""
        everything = torch.cat([queries, tokens], dim=1)
        places = torch.cat([self.q_pos_embed, self.k_pos_embed])
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (
                self.query(queries + self.q_pos_embed),
                self.key(everything + places),
                self.value(everything),
            )
        )
        return _attend(query, key, value)


class AbstractorMlp(nn.Module):
    """Gated perceptron with a norm before its last projection."""

    def __init__(self, cfg: AbstractorConfig) -> None:
        super().__init__()
        self.w1 = Linear(cfg.hidden_size, cfg.intermediate_size)
        self.w2 = Linear(cfg.intermediate_size, cfg.hidden_size)
        self.w3 = Linear(cfg.hidden_size, cfg.intermediate_size)
        self.ffn_ln = nn.LayerNorm(cfg.intermediate_size, eps=cfg.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, Q, width) to (B, Q, width)."""
        out: Tensor = self.w2(self.ffn_ln(F.silu(self.w1(x)) * self.w3(x)))
        return out


class AbstractorOutput(nn.Module):
    """Output projection and perceptron of a layer."""

    def __init__(self, cfg: AbstractorConfig) -> None:
        super().__init__()
        self.out_proj = Linear(cfg.hidden_size, cfg.hidden_size)
        self.norm2 = nn.LayerNorm(cfg.hidden_size, eps=ABSTRACTOR_NORM_EPS)
        self.mlp = AbstractorMlp(cfg)

    def forward(self, attended: Tensor, residual: Tensor) -> Tensor:
        """Map two (B, Q, width) to (B, Q, width)."""
        x = residual + self.out_proj(attended)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class CrossAttention(nn.Module):
    """One abstractor layer; its residual path carries the *normalised* queries, as published."""

    def __init__(self, cfg: AbstractorConfig) -> None:
        super().__init__()
        self.attention = AbstractorAttention(cfg)
        self.output = AbstractorOutput(cfg)
        self.norm1 = nn.LayerNorm(cfg.hidden_size, eps=ABSTRACTOR_NORM_EPS)
        self.normk = nn.LayerNorm(cfg.hidden_size, eps=ABSTRACTOR_NORM_EPS)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Map queries (B, Q, width) and ViT tokens (B, P, width) to (B, Q, width)."""
        queries = self.norm1(queries)
        out: Tensor = self.output(self.attention(queries, self.normk(tokens)), queries)
        return out


class AbstractorLayer(nn.Module):
    """Name level of the state dict around one layer."""

    def __init__(self, cfg: AbstractorConfig) -> None:
        super().__init__()
        self.crossattention = CrossAttention(cfg)


class VisualAbstractor(nn.Module):
    """Condense ViT tokens into visual embeddings of the language model: the queries, then one end vector."""

    def __init__(self, cfg: AbstractorConfig, language_size: int) -> None:
        super().__init__()
        self.encoder = Stack([AbstractorLayer(cfg) for _ in range(cfg.num_hidden_layers)])
        self.visual_fc = Linear(cfg.hidden_size, language_size)
        self.query_embeds = nn.Parameter(torch.empty(1, cfg.num_learnable_queries, cfg.hidden_size))
        self.vit_eos = nn.Parameter(torch.empty(1, 1, language_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ViT tokens (B, P, width) to (B, Q + 1, language width)."""
        queries = self.query_embeds.expand(len(tokens), -1, -1)
        for layer in self.encoder.layers:
            queries = layer.crossattention(queries, tokens)  # type: ignore[operator]
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(len(tokens), -1, -1)], dim=1)
