"""What the zoo asks of a library of networks."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inn_automl.core.errors import SpecError

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class PretrainedConfig:
    """What a library says of a network and of the weights that it offers for it."""

    input_size: tuple[int, int]
    """Height and width that the weights were trained or are evaluated at."""
    mean: tuple[float, ...]
    """Of each channel, of values from 0 to 1."""
    std: tuple[float, ...]
    crop_fraction: float
    """Side of the centre crop as a fraction of the resized image's."""
    interpolation: str
    """ "bilinear", "bicubic" and the like."""
    licence: str
    """SPDX id where the library knows it, else "unknown"."""
    source: str
    """Where the weights come from."""
    is_fixed: bool = False
    """True if the network takes images of the one size only that it is built for."""


class Library(abc.ABC):
    """Makes networks by name."""

    kinds: tuple[str, ...] = ("image",)
    """Kinds of data that its networks take."""

    @abc.abstractmethod
    def check(self, name: str) -> None:
        """Refuses a name that it has no network for.

        Raises:
            UnknownNameError: there is none; names the nearest.
            SpecError: the library is not there.
        """

    @abc.abstractmethod
    def make(self, name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
        """A freshly initialized network.

        Args:
            input_shape: of one sample, (C, H, W) or (C, L).
            num_outputs: of its last layer.

        Raises:
            SpecError: it does not take such samples.
        """

    @abc.abstractmethod
    def config(self, name: str) -> PretrainedConfig | None:
        """What is known of its weights; None if there are none."""

    @abc.abstractmethod
    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        """The tensors of its pretrained weights, from its own cache or hub.

        Raises:
            InputError: there are none, or they cannot be had.
        """

    def has_weights(self, name: str) -> bool:
        """Whether its pretrained weights can be had here: cached, or from a hub that answers."""
        return False

    def classes(self, name: str) -> tuple[str, ...]:
        """Names of the classes that the weights tell apart; empty where not known."""
        return ()


def with_input_channels(module: nn.Module, num_channels: int) -> nn.Module:
    """Replaces the first convolution by one over another number of channels, freshly initialized.

    Args:
        module: changed in place.

    Raises:
        SpecError: the module has no convolution, or its first is grouped.
    """
    found = ((path, one) for path, one in module.named_modules() if isinstance(one, nn.Conv2d))
    path, layer = next(found, ("", None))
    if layer is None:
        raise SpecError(
            f"{type(module).__name__} has no convolution, so that its input cannot be given "
            f"{num_channels} channels: give images of 3."
        )
    if layer.in_channels == num_channels:
        return module
    if layer.groups != 1:
        raise SpecError(
            f"the first convolution of {type(module).__name__} is grouped, so that its input "
            f"cannot be given {num_channels} channels: give images of {layer.in_channels}."
        )
    replaced = nn.Conv2d(
        num_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, replaced)
    return module


def check_runs(module: nn.Module, name: str, input_shape: tuple[int, ...], outputs: int) -> None:
    """Runs a network once on samples of zeros.

    Raises:
        SpecError: it does not run, or its output is no `(N, outputs)`.
    """
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            found = module(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a network does with what it does not take
        raise SpecError(
            f"model {name!r} does not run on samples of shape {tuple(input_shape)} "
            f"({_first_line(error)}): give another size, or another --model."
        ) from error
    finally:
        module.train(was_training)
    if not isinstance(found, Tensor) or tuple(found.shape) != (2, outputs):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise SpecError(
            f"model {name!r} gives {shape} for 2 samples of shape {tuple(input_shape)}, not "
            f"{(2, outputs)}: its output must be one number for each class or target."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__
