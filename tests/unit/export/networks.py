"""Networks of any widths to export."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (2, 8, 8)
MEAN = np.array([100.0, 60.0], np.float32)
STD = np.array([50.0, 80.0], np.float32)


class Mixed(nn.Module):
    """What the families have and more, at any widths: a stream of `a` channels, `b` (and heads),
    `c` inside.
    """

    def __init__(self, a: int, b: int, c: int, seed: int = 0) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, a, 3, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU()
        )
        self.expand = nn.Sequential(
            nn.Conv2d(a, 2 * b, 1, bias=False), nn.BatchNorm2d(2 * b), nn.Hardswish()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(2 * b, 2 * b, 3, padding=1, groups=2 * b), nn.BatchNorm2d(2 * b)
        )
        self.squeeze = nn.Conv2d(2 * b, b, 1)
        self.excite = nn.Conv2d(b, 2 * b, 1)
        self.project = nn.Conv2d(2 * b, a, 1, bias=False)
        self.norm = nn.GroupNorm(1, a)
        self.shared = nn.Conv2d(a, a, 3, padding=1, bias=False)
        self.again = self.shared
        self.pool = nn.MaxPool2d(2)
        self.query, self.key, self.value = (nn.Linear(a, 4 * b) for _ in range(3))
        self.heads = nn.Linear(4 * b, a)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * a, c, bias=False),
            nn.BatchNorm1d(c),
            nn.ReLU(),
            nn.Dropout(),
            nn.LayerNorm(c),
        )
        self.head = nn.Linear(c, 3)
        randomize(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        n, channels, height, width = y.shape
        y = (
            y.view(n, 2, channels // 2, height, width)
            .transpose(1, 2)
            .reshape(n, channels, height, width)
        )
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = torch.relu(x + self.norm(self.project(y)))
        x = self.pool(self.again(torch.relu(self.shared(x))))
        return self.head(self.hidden(x + self.attend(x)))

    def attend(self, x: Tensor) -> Tensor:
        """Attention over the pixels of a map, with `b` heads of size 4."""
        pixels = x.flatten(2).transpose(1, 2)
        query, key, value = (
            layer(pixels).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heads = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.heads(heads).transpose(1, 2).unflatten(2, x.shape[2:])


class Small(nn.Module):
    """The least that has a batch norm to fold; `scale` is a number that no state dict knows."""

    def __init__(self, a: int, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, a, 3, bias=False)
        self.norm = nn.BatchNorm2d(a)
        self.head = nn.Linear(a, 3)
        self.scale = scale
        randomize(self, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).amax((2, 3)) * self.scale)


class Averaging(Small):
    """Computes with its channel count, which no template can see through."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(x.sum((2, 3)) / x.shape[1])


def randomize(module: nn.Module, seed: int) -> None:
    """Gives every parameter and statistic a value that would show if it were lost or swapped.
    Buffers that are no part of the state, the kernels of a front end, stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    saved = module.state_dict()
    statistics = [buffer for name, buffer in module.named_buffers() if name in saved]
    with torch.no_grad():
        for tensor in [*module.parameters(), *statistics]:
            if tensor.is_floating_point():
                low = 0.3 if tensor.ndim == 1 else -0.5
                tensor.uniform_(low, low + 1, generator=generator)
    module.eval()
