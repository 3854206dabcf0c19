"""Plain convolutional network for small images; the depth counts convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, num_halvings, scaled, stem_kernel, stem_stride

CHANNELS_STEP = 16
SMALLEST_MAP = 4
LARGEST_MAP = 64


class ConvNet(nn.Module):
    """3x3 convolution, batch norm, ReLU and (in some blocks) a max pool of 2, then average pooling
    and a linear layer.

    Args:
        channels: output channels of each convolution.
        pooled: indices of the convolutions that a pool follows.
        stride: stride of the first convolution, for large images.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: list[int],
        *,
        pooled: set[int],
        stride: int = 1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (c_in, c_out) in enumerate(
            zip([in_channels, *channels], channels, strict=False)
        ):
            s = stride if index == 0 else 1
            k = stem_kernel(s)
            layers += [
                nn.Conv2d(c_in, c_out, k, s, k // 2, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            ]
            if index in pooled:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def make(input_shape: tuple[int, ...], num_classes: int, width: float, depth: int) -> ConvNet:
    """Channels 16, 32, 48, ... times the width; pools as early as the image allows, because early
    maps cost most.
    """
    side = min(input_shape[1:])
    stride = stem_stride(side, LARGEST_MAP)
    num_pools = min(num_halvings(side // stride, SMALLEST_MAP), depth - 1)
    channels = [scaled(CHANNELS_STEP * (index + 1), width) for index in range(depth)]
    return ConvNet(
        input_shape[0], num_classes, channels, pooled=set(range(num_pools)), stride=stride
    )


FAMILY = Family("convnet", ("image",), 4, (2, 3, 4, 5, 6), (0.5, 1.0, 2.0), make)
