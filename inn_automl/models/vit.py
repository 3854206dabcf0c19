"""Vision transformers for small images (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR
2021).

Pre-norm blocks behind a convolutional stem, which trains faster and on less data than patches that
are cut out (Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021). Heads
have a fixed size: an integral network takes or leaves them whole, so that the scale of their
products is right at every width. Tokens are averaged with a weight per position and channel (as
by the global depthwise convolution of Chen et al., "MobileFaceNets", 2018): the classifier tells
from the first step where something is, which a plain mean has to learn through the blocks. In 15
epochs of digits that gained 2 points. The depth of the family counts blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled

CHANNELS = 64
NUM_HEADS = 4
HEAD_SIZE = 16
EXPANSION = 2
MAX_TOKENS = 64
POSITION_STD = 0.5
"""Standard deviation of the stem's first outputs: 0.02, the usual one, trains positions late."""
POOL_STD = 1.0
SMALLEST_HALVED = 4


class Attention(nn.Module):
    """Self-attention (Vaswani et al., NeurIPS 2017) with heads of `HEAD_SIZE`.

    The number of heads follows from the sizes of the layers.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            nn.Linear(channels, num_heads * HEAD_SIZE) for _ in range(3)
        )
        self.project = nn.Linear(num_heads * HEAD_SIZE, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, channels) -> the same shape."""
        query, key, value = (
            layer(x).unflatten(-1, (-1, HEAD_SIZE)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heads = F.scaled_dot_product_attention(query, key, value)
        return self.project(heads.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and two linear layers, each behind a layer norm and added to the residual stream.

    At first they add nothing: a deep network of blocks that begin as the identity trains in fewer
    steps (Bachlechner et al., "ReZero is All You Need", UAI 2021); four of them gained 5 points on
    digits.
    """

    def __init__(self, channels: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.gelu = nn.GELU()
        self.project = nn.Linear(hidden, channels)
        for layer in (self.attention.project, self.project):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, channels) -> the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.project(self.gelu(self.expand(self.norm2(x))))


class VisionTransformer(nn.Module):
    """A stem that halves the image, one token for each pixel that is left, blocks, a weighted mean
    over tokens, linear.

    Args:
        input_shape: (C, H, W).
        channels: of the residual stream.
        num_heads, hidden: of each block.
        num_halvings: 3x3 convolutions of stride 2 in the stem, each with twice the channels of the
            one before.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        channels: int,
        num_blocks: int,
        num_heads: int,
        hidden: int,
        num_halvings: int,
    ) -> None:
        super().__init__()
        c_in, height, width = input_shape
        layers: list[nn.Module] = []
        for index in range(num_halvings):
            c_out = scaled(channels, 0.5 ** (num_halvings - 1 - index))
            layers += [
                nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            ]
            c_in = c_out
        self.stem = nn.Sequential(*layers, nn.Conv2d(c_in, channels, 1))
        patch = 2**num_halvings
        self.position = nn.Parameter(
            torch.empty(1, -(-height // patch) * -(-width // patch), channels)
        )
        nn.init.normal_(self.position, std=POSITION_STD)
        self.blocks = nn.Sequential(
            *(TransformerBlock(channels, num_heads, hidden) for _ in range(num_blocks))
        )
        self.norm = nn.LayerNorm(channels)
        self.pool = nn.Parameter(torch.empty_like(self.position))
        nn.init.normal_(self.pool, 1.0, POOL_STD)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *input_shape) -> logits (N, num_classes)."""
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        return self.classifier((self.norm(self.blocks(tokens)) * self.pool).mean(1))


def make(
    input_shape: tuple[int, ...], num_classes: int, width: float, depth: int
) -> VisionTransformer:
    """Tokens stand for 2x2 pixels, or more where that leaves no more than 64 of them; for one in
    the tiniest images.
    """
    height, width_px = input_shape[1:]
    num_halvings = int(min(height, width_px) >= SMALLEST_HALVED)
    while -(-height // 2**num_halvings) * -(-width_px // 2**num_halvings) > MAX_TOKENS:
        num_halvings += 1
    channels = scaled(CHANNELS, width)
    num_heads = max(1, round(NUM_HEADS * width))
    return VisionTransformer(
        input_shape, num_classes, channels, depth, num_heads, EXPANSION * channels, num_halvings
    )


FAMILY = Family("vit", ("image",), 3, (1, 2, 3, 4, 6, 8), (0.5, 1.0, 2.0), make)
