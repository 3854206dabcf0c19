"""Tokens: attention and embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.integral.zoo.case import Net, case, own


class Attention(nn.Module):
    def __init__(self, channels: int, num_heads: int, *, is_fused: bool) -> None:
        super().__init__()
        self.num_heads, self.scale, self.is_fused = (
            num_heads,
            (channels // num_heads) ** -0.5,
            is_fused,
        )
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if self.is_fused:
            q, k, v = (
                self.qkv(x).reshape(n, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            )
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            q, k, v = (
                one.view(n, t, self.num_heads, -1).transpose(1, 2)
                for one in self.qkv(x).chunk(3, -1)
            )
            y = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class HeadAttention(nn.Module):
    """Heads of a fixed size; their number is what is left."""

    def __init__(self, channels: int, num_heads: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.q, self.k, self.v = (nn.Linear(channels, num_heads * size) for _ in range(3))
        self.proj = nn.Linear(num_heads * size, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k = (
            layer(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.q, self.k)
        )
        v = self.v(x).view(n, t, -1, self.size).transpose(1, 2)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))


def transformer(*, with_norm: bool, attention: nn.Module) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.position
        x = x + m.scale * m.attention(m.norm(x))
        x = x + m.down(F.gelu(m.up(x)))
        return m.head(x[:, 0])

    return Net(
        run,
        patches=nn.Conv2d(3, 8, 4, 4),
        token=own(1, 1, 8),
        position=own(1, 5, 8),
        scale=own(8),
        norm=nn.LayerNorm(8) if with_norm else nn.Identity(),
        attention=attention,
        up=nn.Linear(8, 12),
        down=nn.Linear(12, 8),
        head=nn.Linear(8, 5),
    )


@case({"patches": 8, "attention.qkv": (24, 6), "up": 12})
def attention_by_hand() -> nn.Module:
    return transformer(with_norm=False, attention=Attention(8, 2, is_fused=False))


@case({"patches": 8, "attention.qkv": (24, 6), "up": 12}, is_maskable=False)
def attention_fused() -> nn.Module:
    return transformer(with_norm=True, attention=Attention(8, 2, is_fused=True))


@case({"patches": 8, "attention.q": (16, 4), "up": 12})
def attention_heads() -> nn.Module:
    return transformer(with_norm=False, attention=HeadAttention(8, 4, 4))


@case({"patches": 8, "attention.q": (16, 4), "up": 12}, is_maskable=False)
def attention_heads_behind_layer_norm() -> nn.Module:
    return transformer(with_norm=True, attention=HeadAttention(8, 4, 4))


@case({"embed": 8, "fc": 6}, input=lambda: torch.randint(0, 10, (2, 7)))
def tokens() -> nn.Module:
    return Net(
        lambda m, x: m.out(F.relu(m.fc(m.embed(x).mean(1)))),
        embed=nn.Embedding(10, 8),
        fc=nn.Linear(8, 6),
        out=nn.Linear(6, 5),
    )


@case({"patches": 8, "up": 6}, frozen={"mix": "fixed size"})
def token_mixing() -> nn.Module:
    """The number of tokens cannot be resized, whatever mixes them."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patches(x).flatten(2)
        x = x + m.mix(x)
        return m.head(F.relu(m.up(x.transpose(1, 2))).mean(1))

    return Net(
        run,
        patches=nn.Conv2d(3, 8, 2, 2),
        mix=nn.Linear(16, 16),
        up=nn.Linear(8, 6),
        head=nn.Linear(6, 5),
    )
