"""Architectures: our families, and the zoo of other libraries; ordinary torch modules from
standardized samples to logits, numbers or images.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.core.metric import TaskKind
from inn_automl.models import (
    convnet,
    edsr,
    mlp,
    mobilenet,
    resnet,
    signal,
    spectrogram,
    timeseries,
    vit,
)
from inn_automl.models.family import Family, kind_of
from inn_automl.models.zoo import is_zoo_name, zoo_family

__all__ = ["FAMILIES", "Family", "build", "default_family", "get_family", "serving_family"]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        module.FAMILY.name: module.FAMILY
        for module in (mlp, convnet, resnet, mobilenet, vit, spectrogram, timeseries, signal, edsr)
    }
)

# Above this side, depthwise blocks reach far more accuracy per multiply-add than a handful of
# plain convolutions.
_LARGEST_CONVNET_SIDE = 32

_SHORTEST_SOUND_S = 0.1
"""Shorter sounds have too few windows of 25 ms for a spectrogram."""

_SHORTEST_SERIES = 64
"""Shorter series gain nothing by the resolution that `timeseries` keeps, and cost less without."""


def get_family(name: str) -> Family:
    """The family of that name.

    Args:
        name: of one of `FAMILIES`, `timm:NAME`, `torchvision:NAME`, or `package.module:factory`.

    Raises:
        UnknownNameError: there is none; names the nearest.
        SpecError: the library of the name is not installed, or the factory cannot be imported.
    """
    if is_zoo_name(name):
        return zoo_family(name)
    if name not in FAMILIES:
        raise UnknownNameError("model", name, FAMILIES)
    return FAMILIES[name]


def default_family(
    kind: str,
    input_shape: tuple[int, ...],
    task: TaskKind = "classification",
    *,
    sample_rate_hz: int | None = None,
) -> str:
    """Name of the family that serves this kind of data ("image" or "signal") when the user names
    none.

    Args:
        sample_rate_hz: of sound, which has a family of its own; None for other signals.

    Raises:
        UnknownNameError: another kind.
    """
    if task == "super-resolution":
        return "edsr"
    if kind == "signal":
        is_sound = (
            sample_rate_hz is not None and input_shape[1] >= _SHORTEST_SOUND_S * sample_rate_hz
        )
        if is_sound:
            return "spectrogram"
        return "timeseries" if input_shape[1] >= _SHORTEST_SERIES else "signal"
    if kind == "image":
        return "convnet" if min(input_shape[1:]) <= _LARGEST_CONVNET_SIDE else "mobilenet"
    raise UnknownNameError("kind of data", kind, ("image", "signal"))


def build(
    family: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    width: float = 1.0,
    depth: int | None = None,
    task: TaskKind = "classification",
    scale: int | None = None,
    sample_rate_hz: int | None = None,
) -> nn.Module:
    """A network of the family, freshly initialized from torch's global random state.

    Args:
        input_shape: of one sample, `(C, H, W)` or `(C, L)`.
        num_classes: logits; of a regression, targets; of super-resolution it says nothing.
        width: multiplier of every channel count of the family.
        depth: one of the family's `depths`; its `default_depth` if None.
        task: what the network is for.
        scale: of super-resolution, how many times larger its images are.
        sample_rate_hz: of sound; None for anything else.

    Returns:
        A module from standardized float32 `(N, *input_shape)` to logits or standardized targets
        `(N, num_classes)`, or to standardized images `(N, C, scale H, scale W)`.

    Raises:
        UnknownNameError: no such family.
        SpecError: the family does not take this task, kind of data, depth or width.
    """
    chosen = get_family(family)
    depth = chosen.default_depth if depth is None else depth
    _check_support(chosen, input_shape, depth, width, task)
    _check_outputs(num_classes, task, scale)
    num_outputs = num_classes if scale is None else scale
    rate = {"sample_rate_hz": sample_rate_hz} if chosen.takes_sample_rate else {}
    return chosen.make(tuple(input_shape), num_outputs, width, depth, **rate)


def serving_family(
    name: str | None,
    kind: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    task: TaskKind = "classification",
    scale: int | None = None,
    sample_rate_hz: int | None = None,
) -> str:
    """Name of a family that serves the data: `name`, or the default one for None.

    Builds nothing: the other arguments are those of `default_family` and `build`.

    Raises:
        UnknownNameError: no such family, or kind of data.
        SpecError: the family does not serve the data.
    """
    default = default_family(kind, input_shape, task, sample_rate_hz=sample_rate_hz)
    chosen = get_family(name or default)
    _check_support(chosen, input_shape, chosen.default_depth, 1.0, task)
    _check_outputs(num_classes, task, scale)
    return chosen.name


def _check_support(
    family: Family, input_shape: tuple[int, ...], depth: int, width: float, task: TaskKind
) -> None:
    kind = kind_of(input_shape)
    serving = [
        name for name, other in FAMILIES.items() if task in other.tasks and kind in other.kinds
    ]
    if task not in family.tasks:
        hint = f"use {' or '.join(serving)}" if serving else "give images, as N x C x H x W"
        raise SpecError(f"model {family.name!r} does not serve {task}: {hint}.")
    if kind not in family.kinds or min(input_shape, default=0) < 1:
        hint = (
            f"use {' or '.join(serving)}"
            if serving
            else "give samples of shape (C, H, W) or (C, L)"
        )
        raise SpecError(
            f"model {family.name!r} does not take samples of shape {tuple(input_shape)}: {hint}."
        )
    if depth not in family.depths:
        raise SpecError(
            f"model {family.name!r} has no depth {depth}: choose one of "
            f"{', '.join(str(d) for d in family.depths)}."
        )
    if not 0 < width <= 64:
        raise SpecError(
            f"width multiplier {width} is out of range: choose a number above 0 and up to 64."
        )


def _check_outputs(num_classes: int, task: TaskKind, scale: int | None) -> None:
    if task == "classification" and num_classes < 2:
        raise SpecError(f"{num_classes} classes leave no choice: give data with at least 2.")
    if task == "regression" and num_classes < 1:
        raise SpecError(f"{num_classes} targets cannot be predicted: give at least 1.")
    if task == "super-resolution" and (scale is None or scale < 2):
        raise SpecError(f"scale {scale} enlarges nothing: give an integer of at least 2.")
