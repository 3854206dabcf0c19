"""Super-resolution by residual blocks without normalization (Lim et al., "Enhanced Deep Residual
Networks for Single Image Super-Resolution", CVPR Workshops 2017), sized for small budgets. The
depth of the family counts residual blocks.

As in the paper: no batch norm, for it takes away the range of an image; scaled residuals; a skip
around all blocks; a convolution to C s² channels and a pixel shuffle as the last step, so that all
but this runs at the small size. Unlike it, the network computes what is to be added to the
enlarged input, as in J. Yu et al., "Wide Activation for Efficient and Accurate Image
Super-Resolution" (2018): by one 5x5 convolution before the shuffle, which begins as bicubic
interpolation and is trained with the rest. So every width starts near what interpolation gives,
and no runtime has to interpolate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled

CHANNELS = 32
RESIDUAL_SCALE = 0.1
"""The paper's factor on what a block adds, which keeps training stable."""
TAPS = 5
"""Input pixels along each side that bicubic interpolation takes for the pixels of one, at any
integer scale.
"""


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
        self.head = nn.Conv2d(image_channels, channels, 3, 1, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(num_blocks)))
        self.body_end = nn.Conv2d(channels, channels, 3, 1, 1)
        self.tail = nn.Conv2d(channels, image_channels * scale**2, 3, 1, 1)
        self.enlarge = nn.Conv2d(image_channels, image_channels * scale**2, TAPS, bias=False)
        self.shuffle = nn.PixelShuffle(scale)
        self.enlarge.weight.data.copy_(_bicubic(image_channels, scale))
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, scale H, scale W)."""
        features = self.head(x)
        features = features + self.body_end(self.blocks(features))
        bordered = F.pad(x, [TAPS // 2] * 4, mode="replicate")
        return self.shuffle(self.tail(features) + self.enlarge(bordered))


def _bicubic(image_channels: int, scale: int) -> Tensor:
    """(C s², C, 5, 5) weights that interpolate each channel before a pixel shuffle."""
    impulses = F.pad(torch.eye(TAPS**2).reshape(-1, 1, TAPS, TAPS), [TAPS // 2] * 4)
    enlarged = F.interpolate(impulses, scale_factor=scale, mode="bicubic")
    middle = slice(scale * (TAPS - 1), scale * TAPS)
    kernels = enlarged[:, 0, middle, middle].reshape(TAPS, TAPS, scale**2).permute(2, 0, 1)
    return torch.einsum("cd,khw->ckdhw", torch.eye(image_channels), kernels).flatten(0, 1)


def make(input_shape: tuple[int, ...], scale: int, width: float, depth: int) -> EDSR:
    return EDSR(input_shape[0], scale, scaled(CHANNELS, width), depth)


FAMILY = Family(
    "edsr", ("image",), 4, (1, 2, 4, 8), (0.5, 1.0, 2.0), make, tasks=("super-resolution",)
)
