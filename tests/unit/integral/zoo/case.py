"""A module of the zoo, and the coupled groups that it must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A module from its layers and its forward."""

    def __init__(
        self, run: Callable[[Any, Tensor], Any], **layers: nn.Module | nn.Parameter | float
    ) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


@dataclass(frozen=True)
class Case:
    """A module and what must be found in it.

    Attributes:
        groups: size and unit of each coupled group.
        frozen: layers that stay, each with a word of the reason.
        is_maskable: whether removed channels may as well be set to zero (nothing averages over
            channels).
    """

    make: Callable[[], nn.Module]
    groups: dict[str, tuple[int, int]]
    shape: tuple[int, ...] = (2, 3, 8, 8)
    frozen: dict[str, str] = field(default_factory=dict)
    is_maskable: bool = True
    input: Callable[[], Tensor] | None = None

    def example(self) -> Tensor:
        torch.manual_seed(1)
        return self.input() if self.input else torch.randn(self.shape)


CASES: dict[str, Case] = {}


def case(
    groups: dict[str, tuple[int, int] | int], **options: Any
) -> Callable[[Callable[[], nn.Module]], None]:
    """Registers a function that makes a module; groups without a unit have a unit of 1."""

    def register(make: Callable[[], nn.Module]) -> None:
        sizes = {
            name: size if isinstance(size, tuple) else (size, 1) for name, size in groups.items()
        }
        CASES[make.__name__] = Case(make, sizes, **options)

    return register


def conv(c_in: int, c_out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **options)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def own(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))
