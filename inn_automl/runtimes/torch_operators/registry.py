"""Registry of the operators that have a counterpart in torch, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inn_automl.core.errors import MeasurementError

Compute = Callable[..., Any]
"""Function from a node's inputs (None where an optional one is left out) to its output, or to a
sequence of all outputs.
"""

Constants = Sequence[np.ndarray | None]
"""A node's inputs as far as the file holds their values."""

Attributes = Mapping[str, Any]

Maker = Callable[[Attributes, Constants], Compute]

MAKERS: dict[str, Maker] = {}
"""Makers by operator; filled by the other modules of this folder."""


class NotCoveredError(Exception):
    """Names the part of an operator that has no counterpart."""


def makes(*operators: str) -> Callable[[Maker], Maker]:
    """Enters a maker for the operators."""

    def register(maker: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(operators, maker))
        return maker

    return register


def make(operator: str, attributes: Attributes, constants: Constants) -> Compute:
    """Makes the function that computes a node.

    Raises:
        MeasurementError: torch has no counterpart here; names the operator, or the attribute that
            is not covered.
    """
    if operator not in MAKERS:
        raise MeasurementError(
            f"the torch runtimes have no operator {operator!r}: use an ONNX Runtime one."
        )
    try:
        return MAKERS[operator](attributes, constants)
    except NotCoveredError as error:
        raise MeasurementError(
            f"the torch runtimes do not cover {operator} with {error}: use an ONNX Runtime one."
        ) from None


def ints(constants: Constants, index: int, what: str) -> list[int] | None:
    """A constant input as integers; None where it is left out."""
    if index >= len(constants):
        return None
    values = constants[index]
    if values is None:
        raise NotCoveredError(f"{what} that the graph computes")
    return [int(value) for value in values.reshape(-1)]


def torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Paddings in the order of `torch.nn.functional.pad`: the last dimension first."""
    return [size for pair in zip(reversed(begin), reversed(end), strict=True) for size in pair]
