"""Networks of a user: `package.module:factory`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from inn_automl.core.errors import InputError, SpecError, UnknownNameError
from inn_automl.models.zoo.library import Library, PretrainedConfig


class FactoryLibrary(Library):
    """`package.module:factory`, called as `factory(num_outputs, input_shape)`.

    The factory returns a freshly initialized module from standardized float32 `(N, *input_shape)`
    to `(N, num_outputs)`. The package must be importable wherever the job's processes run.
    """

    kinds = ("image", "signal")

    def check(self, name: str) -> None:
        _factory(name)

    def make(self, name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
        try:
            module = _factory(name)(num_outputs, tuple(input_shape))
        except Exception as error:  # whatever a user's code raises
            raise SpecError(
                f"the factory {name!r} failed with {type(error).__name__} ({error}) when called as "
                f"factory({num_outputs}, {tuple(input_shape)}): it must return a torch module for "
                "that number of outputs and that shape of a sample."
            ) from error
        if not isinstance(module, nn.Module):
            raise SpecError(
                f"the factory {name!r} returned {type(module).__name__}: return a torch.nn.Module."
            )
        return module

    def config(self, name: str) -> PretrainedConfig | None:
        return None

    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        raise InputError(
            f"nothing offers weights for {name!r}: give a file of weights, or --weights none."
        )


def _factory(name: str) -> Callable[..., Any]:
    path, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise SpecError(
            f"model {name!r}: {path!r} cannot be imported here ({error}): give timm:NAME, "
            "torchvision:NAME, or package.module:factory of a package on the Python path."
        ) from None
    except Exception as error:  # whatever a user's module does when it is imported
        raise SpecError(
            f"model {name!r}: importing {path!r} failed with {type(error).__name__} ({error})."
        ) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        known = [
            name
            for name, one in vars(module).items()
            if callable(one) and getattr(one, "__module__", None) == path and name[0] != "_"
        ]
        raise UnknownNameError(f"factory of {path!r}", attribute, known)
    if not callable(factory):
        raise SpecError(
            f"model {name!r} is of type {type(factory).__name__}: name a function (or class) that "
            "returns a torch module."
        )
    found: Callable[..., Any] = factory
    return found
