"""Saturation of activations: outputs of a layer that reach nothing but a clipping activation.

Outside of the bounds of a ReLU, ReLU6 or hardtanh the activation is constant: outputs that lie
there may take any other value there, which leaves a least-squares fit more freedom.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

Bounds = tuple[float, float]
"""Lowest and highest input that an activation does not clip; infinite where it clips nothing."""

_RECTIFIERS = frozenset({functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


class SaturationRecorder(TorchFunctionMode):
    """While entered, counts the operations that take watched tensors, and records their bounds."""

    def __init__(self) -> None:
        super().__init__()
        self._watched = WeakIdKeyDictionary()  # tensor -> path of the layer that it comes from
        self._num_uses: Counter[str] = Counter()
        self._bounds: dict[str, Bounds] = {}

    def watch(self, tensor: Tensor, path: str) -> None:
        """Records operations on an output of the layer at `path`."""
        self._watched[tensor] = path

    def bounds(self, path: str, num_steps: int) -> Bounds | None:
        """The bounds of the activation that takes a layer's output; None if anything else does.

        Args:
            num_steps: operations between the layer and the end of the activation, which is the
                last one: 1, or 2 with a normalization in between.
        """
        return self._bounds.get(path) if self._num_uses[path] == num_steps else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(one, Tensor) for one in _flat([out])):
            for argument in _flat(args):
                path = self._watched.get(argument) if isinstance(argument, Tensor) else None
                if path is not None:
                    self._num_uses[path] += 1
                    bounds = _activation_bounds(func, args, kwargs or {})
                    if bounds is not None:
                        self._bounds[path] = bounds
                        if out is argument:  # in place
                            del self._watched[argument]
        return out


def _flat(values: Any) -> list[Any]:
    """Values, with lists and tuples among them unpacked."""
    return [
        one for value in values for one in (value if isinstance(value, list | tuple) else (value,))
    ]


def _activation_bounds(func: Any, args: Any, kwargs: Any) -> Bounds | None:
    if func in _RECTIFIERS:
        return 0.0, math.inf
    if func is functional.relu6:
        return 0.0, 6.0
    if func is functional.hardtanh:
        low, high = (
            *args[1:3],
            *(kwargs.get(key, value) for key, value in (("min_val", -1.0), ("max_val", 1.0))),
        )[:2]
        return float(low), float(high)
    return None
