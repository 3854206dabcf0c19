"""Costs of plain convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence

from inn_automl.core.costs import LayerCost


def conv_layers(widths: Sequence[int], *, side: int = 8) -> list[LayerCost]:
    """Layers of 3x3 convolutions on a square map."""
    layers = []
    for into, out in zip([3, *widths], widths, strict=False):
        params = 9 * into * out
        layers.append(
            LayerCost(
                name=f"conv{len(layers)}",
                kind="conv",
                macs=params * side**2,
                params=params,
                in_channels=into,
                out_channels=out,
                input_elements=into * side**2,
                output_elements=out * side**2,
            )
        )
    return layers
