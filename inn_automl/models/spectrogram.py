"""2-D convolutional network over log-mel spectrograms, for sound; the depth counts blocks.

Blocks are depthwise separable, as in Zhang et al., "Hello Edge: Keyword spotting on
microcontrollers" (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled
from inn_automl.models.log_mel import LogMel

CHANNELS = (32, 64, 96)
"""Of the stem, of the first two blocks, and of those after them."""
STEM_KERNEL = 5
SMALLEST_MAP = 5


class SeparableBlock(nn.Module):
    """3x3 depthwise and 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False),
            nn.BatchNorm2d(c_in),
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.layers(x)
        return y


class SpectrogramNet(nn.Module):
    """Log-mel spectrogram, a convolution that halves it, separable blocks, average pooling, linear.

    Args:
        front: from samples to spectrograms.
        in_channels: of the signal.
        channels: of the stem and of each block.
        strides: of each block.
    """

    def __init__(
        self,
        front: LogMel,
        in_channels: int,
        num_classes: int,
        channels: list[int],
        strides: list[int],
    ) -> None:
        super().__init__()
        self.log_mel = front
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels[0], STEM_KERNEL, 2, STEM_KERNEL // 2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(c_in, c_out, stride)
                for c_in, c_out, stride in zip(channels, channels[1:], strides, strict=False)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) -> logits (N, num_classes)."""
        maps = self.blocks(self.stem(self.log_mel(x)))
        return self.classifier(torch.flatten(self.pool(maps), 1))


def make(
    input_shape: tuple[int, ...],
    num_classes: int,
    width: float,
    depth: int,
    *,
    sample_rate_hz: int | None = None,
) -> SpectrogramNet:
    """The first and every other block halve the map, while it has more than 5 bands and
    windows: most of the time would go into the largest maps.
    """
    channels, length = input_shape
    front = LogMel(length, sample_rate_hz)
    side = -(-min(front.num_bands, front.num_windows) // 2)
    strides = []
    for index in range(depth):
        halves = index % 2 == 0 and side > SMALLEST_MAP
        strides.append(2 if halves else 1)
        side = -(-side // 2) if halves else side
    of_blocks = [CHANNELS[min(1 + index // 2, len(CHANNELS) - 1)] for index in range(depth)]
    return SpectrogramNet(
        front,
        channels,
        num_classes,
        [scaled(one, width) for one in (CHANNELS[0], *of_blocks)],
        strides,
    )


FAMILY = Family(
    "spectrogram", ("signal",), 5, (3, 4, 5, 6, 8), (0.5, 1.0, 2.0), make, takes_sample_rate=True
)
