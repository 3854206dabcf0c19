"""Costs of plain convolutional networks, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace


def conv_costs(widths: Sequence[int], *, side: int = 8) -> SimpleNamespace:
    """Costs of 3x3 convolutions on a square map."""
    layers = []
    for into, out in zip([3, *widths], widths, strict=False):
        params = 9 * into * out
        layers.append(
            SimpleNamespace(
                macs=params * side**2,
                params=params,
                in_channels=into,
                out_channels=out,
                input_elements=into * side**2,
                output_elements=out * side**2,
            )
        )
    return SimpleNamespace(layers=tuple(layers))
