"""Networks that others wrote, behind the interface of our families: `timm:NAME`,
`torchvision:NAME`, and `package.module:factory` of a user.

They have one width and one depth, and take images; a user's factory decides itself what it takes.
"""

from __future__ import annotations

import functools

from torch import nn

from inn_automl.core.allowed_models import SEPARATOR
from inn_automl.core.errors import SpecError
from inn_automl.models.family import Family
from inn_automl.models.zoo.factory_library import FactoryLibrary
from inn_automl.models.zoo.library import UNKNOWN_LICENCE, Library, PretrainedConfig
from inn_automl.models.zoo.timm_library import TimmLibrary
from inn_automl.models.zoo.torchvision_library import TorchvisionLibrary

__all__ = [
    "SEPARATOR",
    "UNKNOWN_LICENCE",
    "Library",
    "PretrainedConfig",
    "is_factory",
    "is_zoo_name",
    "library_of",
    "zoo_family",
]

_DEPTH = 1
"""Of a network whose depth is part of its name."""

_LIBRARIES: dict[str, Library] = {"timm": TimmLibrary(), "torchvision": TorchvisionLibrary()}


def is_zoo_name(name: str) -> bool:
    """True if a name of a model means one of another library, or of a user."""
    return SEPARATOR in name


def is_factory(name: str) -> bool:
    """True if a name of a model means code of a user, which runs when it is built."""
    return is_zoo_name(name) and name.partition(SEPARATOR)[0] not in _LIBRARIES


def library_of(name: str) -> tuple[Library, str]:
    """The library of a model, and the model's name in it.

    Args:
        name: with a separator.
    """
    prefix, _, rest = name.partition(SEPARATOR)
    if prefix in _LIBRARIES:
        return _LIBRARIES[prefix], rest
    return FactoryLibrary(), name


@functools.lru_cache(maxsize=64)
def zoo_family(name: str) -> Family:
    """A network of another library as a family of one width and one depth.

    Raises:
        UnknownNameError: the library has no such network; names the nearest.
        SpecError: the library is not installed, or a factory cannot be imported.
    """
    library, own_name = library_of(name)
    library.check(own_name)

    def make(input_shape: tuple[int, ...], num_outputs: int, width: float, depth: int) -> nn.Module:
        if width != 1:
            raise SpecError(
                f"model {name!r} has one width, multiplier {width:g} was given: leave it at 1."
            )
        return library.make(own_name, input_shape, num_outputs)

    return Family(
        name=name,
        kinds=library.kinds,
        default_depth=_DEPTH,
        depths=(_DEPTH,),
        width_multipliers=(1.0,),
        make=make,
    )
