"""Classifiers of torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inn_automl.core.errors import InputError, SpecError, UnknownNameError
from inn_automl.models.zoo.hub import is_reachable, unavailable
from inn_automl.models.zoo.library import Library, PretrainedConfig, with_input_channels

_HUB = "https://download.pytorch.org"
_LICENCE = "BSD-3-Clause"
"""Of the library, which publishes its weights without one of their own."""
_AUXILIARY = ("googlenet", "inception_v3")
"""Networks with second heads for training, which are left out."""


class TorchvisionLibrary(Library):
    """`torchvision:NAME`."""

    def check(self, name: str) -> None:
        known = _models().list_models(module=_models())
        if name not in known:
            raise UnknownNameError("model of torchvision", name, known)

    def make(self, name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
        arguments: dict[str, Any] = {"num_classes": num_outputs}
        if name in _AUXILIARY:
            arguments |= {"aux_logits": False, "init_weights": True}
        size = tuple(input_shape[1:])
        if "image_size" in _parameters(name):
            if size[0] != size[1]:
                raise SpecError(
                    f"model 'torchvision:{name}' takes square images only, not "
                    f"{size[0]} x {size[1]}: give --input-size {max(size)}, or another --model."
                )
            arguments["image_size"] = size[0]
        try:
            module: nn.Module = _models().get_model(name, weights=None, **arguments)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise SpecError(
                f"model 'torchvision:{name}' cannot be made for images of {size[0]} x {size[1]} "
                f"({error}): give another --input-size, or another --model."
            ) from error
        return with_input_channels(module, input_shape[0])

    def config(self, name: str) -> PretrainedConfig | None:
        weights = _weights(name)
        if weights is None:
            return None
        transforms = weights.transforms()
        crop, resized = transforms.crop_size[0], transforms.resize_size[0]
        return PretrainedConfig(
            input_size=(crop, crop),
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
            crop_fraction=crop / resized,
            interpolation=str(transforms.interpolation.value),
            licence=_LICENCE,
            source=weights.url,
            is_fixed="image_size" in _parameters(name),
        )

    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        weights = _weights(name)
        if weights is None:
            raise InputError(
                f"torchvision has no weights for model {name!r}: give a file, or --weights none."
            )
        cache = str(_cache())
        if not self.has_weights(name):
            raise unavailable(f"torchvision:{name}", _HUB, cache)
        try:
            tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise unavailable(f"torchvision:{name}", _HUB, cache, error) from error
        return tensors

    def has_weights(self, name: str) -> bool:
        weights = _weights(name)
        if weights is None:
            return False
        return (_cache() / Path(weights.url).name).exists() or is_reachable(_HUB)

    def classes(self, name: str) -> tuple[str, ...]:
        weights = _weights(name)
        return tuple(weights.meta.get("categories", ())) if weights is not None else ()


def _models() -> Any:
    try:
        from torchvision import models
    except ImportError:
        raise SpecError("torchvision is not installed: pip install 'inn-automl[worker]'.") from None
    return models


def _weights(name: str) -> Any:
    """The weights that torchvision recommends; None if there are none."""
    return getattr(_models().get_model_weights(name), "DEFAULT", None)


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """Arguments of the network's class."""
    builder = _models().get_model_builder(name)
    owner = inspect.getmodule(inspect.unwrap(builder))
    found: dict[str, inspect.Parameter] = {}
    for _, one in inspect.getmembers(owner, inspect.isclass):
        if issubclass(one, nn.Module) and one.__module__ == owner.__name__:  # type: ignore[union-attr]
            found |= inspect.signature(one).parameters
    return found
