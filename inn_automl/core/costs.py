"""Parameters and multiply-accumulates of a network at any widths, without building it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerCost:
    """Cost of one weighted layer for one sample.

    `input_elements` and `output_elements` count activations; `macs` counts multiply-accumulates.
    """

    name: str
    kind: str
    macs: int
    params: int
    in_channels: int
    out_channels: int
    input_elements: int
    output_elements: int


@dataclass(frozen=True)
class Costs:
    """Cost of a network at given widths: parameters (shared ones once) and multiply-accumulates
    for one sample.
    """

    params: int
    macs: int
    layers: tuple[LayerCost, ...]
