"""Residual networks in the CIFAR style (He et al., "Deep Residual Learning", CVPR 2016, section
4.2).

The depth of the family is the paper's 6n + 2: three stages of n basic blocks with 16, 32 and 64
channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inn_automl.models.family import Family, scaled, stem_kernel, stem_stride

LARGEST_MAP = 32


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut: identity, or 1x1 convolution
    where shapes differ.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, ceil(H / stride), ceil(W / stride))."""
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A convolutional stem, stages of basic blocks (each but the first halves the map), average
    pooling, linear.

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
        num_blocks: list[int],
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
        for stage, (c_out, count) in enumerate(zip(channels, num_blocks, strict=True)):
            for index in range(count):
                blocks.append(BasicBlock(c_in, c_out, 2 if stage > 0 and index == 0 else 1))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, num_classes)."""
        return self.classifier(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


def resnet18_cifar(num_classes: int = 10, *, in_channels: int = 3) -> ResNet:
    """ResNet-18 with a 3x3 stem for 32x32 images: 64-128-256-512 channels, two blocks each, 11.2 M
    parameters.
    """
    return ResNet(in_channels, num_classes, [64, 128, 256, 512], [2, 2, 2, 2])


def make(input_shape: tuple[int, ...], num_classes: int, width: float, depth: int) -> ResNet:
    channels = [scaled(c, width) for c in (16, 32, 64)]
    stride = stem_stride(min(input_shape[1:]), LARGEST_MAP)
    return ResNet(input_shape[0], num_classes, channels, [(depth - 2) // 6] * 3, stride=stride)


FAMILY = Family("resnet", ("image",), 14, (8, 14, 20, 32, 44, 56), (0.5, 1.0, 2.0), make)
