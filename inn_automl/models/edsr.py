"""Super-resolution by residual blocks without normalization (Lim et al., "Enhanced Deep Residual Networks for Single
Image Super-Resolution", CVPR Workshops 2017), sized for small budgets. The depth of the family counts residual blocks.

As in the paper: no batch norm, for it takes away the range of an image; scaled residuals; a skip around all blocks; a
convolution to C s² channels and a pixel shuffle as the last step, so that all but this runs at the small size. Unlike
it, the network computes what is to be added to the input, enlarged by repeating pixels: few blocks then suffice to beat
interpolation, and the network of any width starts from there.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled

CHANNELS = 32
RESIDUAL_SCALE = 0.1
"""The paper's factor on what a block adds, which keeps training stable."""


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, scaled and added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        return x + RESIDUAL_SCALE * self.conv2(self.relu(self.conv1(x)))


class EDSR(nn.Module):
    """A convolution, residual blocks with a skip around them, a convolution and a pixel shuffle.

    Args:
        image_channels: of the input and the output.
        scale: how many times larger the output is.
        channels: of the residual stream.
        num_blocks: residual blocks.
    """

    def __init__(self, image_channels: int, scale: int, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(image_channels, channels, 3, 1, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(num_blocks)))
        self.body_end = nn.Conv2d(channels, channels, 3, 1, 1)
        self.tail = nn.Conv2d(channels, image_channels * scale**2, 3, 1, 1)
        self.shuffle = nn.PixelShuffle(scale)
        # The first output of every width is the enlarged input: training starts from interpolation and not from noise.
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, scale H, scale W)."""
        features = self.head(x)
        features = features + self.body_end(self.blocks(features))
        return self.shuffle(self.tail(features)) + F.interpolate(x, scale_factor=float(self.scale), mode="nearest")


def make(input_shape: tuple[int, ...], scale: int, width: float, depth: int) -> EDSR:
    return EDSR(input_shape[0], scale, scaled(CHANNELS, width), depth)


FAMILY = Family("edsr", ("image",), 4, (1, 2, 4, 8), (0.5, 1.0, 2.0), make, tasks=("super-resolution",))
