"""Inverted residuals with depthwise convolution and squeeze-excite (Howard et al., "Searching for
MobileNetV3", 2019).

The depth of the family counts blocks in each of the three stages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled, stem_kernel, stem_stride

CHANNELS = (16, 32, 64)
EXPANSION = 3
SQUEEZE = 4
LARGEST_MAP = 32
SMALLEST_HALVED = 16


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, squeeze-excite, 1x1 projection; a residual where
    shapes agree.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * c_in
        self.layers = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            SqueezeExcite(hidden, max(4, hidden // SQUEEZE)),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.is_residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, ceil(H / stride), ceil(W / stride))."""
        y = self.layers(x)
        return x + y if self.is_residual else y


class MobileNet(nn.Module):
    """A stem, stages of inverted residuals (each but the first halves the map), a 1x1 head,
    average pooling, linear.

    Args:
        channels: channels of each stage; the stem has those of the first.
        num_blocks: blocks in each stage.
        stride: stride of the stem, for large images.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: list[int],
        num_blocks: int,
        *,
        stride: int = 1,
    ) -> None:
        super().__init__()
        k = stem_kernel(stride)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels[0], k, stride, k // 2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        c_in = channels[0]
        for stage, c_out in enumerate(channels):
            for index in range(num_blocks):
                blocks.append(InvertedResidual(c_in, c_out, 2 if stage > 0 and index == 0 else 1))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Conv2d(c_in, 2 * c_in, 1, bias=False), nn.BatchNorm2d(2 * c_in), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(2 * c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.head(self.blocks(self.stem(x)))), 1))


def make(input_shape: tuple[int, ...], num_classes: int, width: float, depth: int) -> MobileNet:
    """The stem halves the image, as in MobileNet itself, unless it is tiny; large ones it brings
    to 32 pixels.
    """
    side = min(input_shape[1:])
    stride = max(2, stem_stride(side, LARGEST_MAP)) if side >= SMALLEST_HALVED else 1
    return MobileNet(
        input_shape[0], num_classes, [scaled(c, width) for c in CHANNELS], depth, stride=stride
    )


FAMILY = Family("mobilenet", ("image",), 2, (1, 2, 3, 4), (0.5, 1.0, 2.0), make)
