"""What the latency of a network is predicted from: numbers that follow from its widths alone.

Kernels compute 8 or 16 channels at a time, and a runtime may change the kernel with the number of
channels. ONNX Runtime's convolutions, for one (a 3x3 on AVX-512: 32 channels 99 us, 33 channels
165 us, 36 to 48 channels 137 us):

- *thin* input, fewer channels than a vector has lanes: read as it is; the output is rounded up to
  whole vectors;
- *ragged* input, not a multiple of 4 channels: another, slower kernel, and the data is moved into
  its layout and back;
- *blocked* input, all others: both are rounded up to whole vectors.

So the work of a layer is counted in the class that it belongs to, for vectors of 8 and of 16
lanes: the measured widths tell which of these a machine has. What follows a layer (pooling,
additions) is slower where its channels do not fill whole vectors, which counts its output once
more. Weights beyond the size of a cache take longer to read than those within.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_LANES = (8, 16)
_MULTIPLE = 4
_CACHED_PARAMS = tuple(2**exponent for exponent in (14, 16, 17, 18, 19, 20))
"""Float32 weights that fit into caches of 64 KiB to 4 MiB."""


class Layer(Protocol):
    """One weighted layer; an `integral.costs.LayerCost` is one."""

    @property
    def macs(self) -> int: ...
    @property
    def params(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def input_elements(self) -> int: ...
    @property
    def output_elements(self) -> int: ...


class Costs(Protocol):
    """What a network costs at some widths; an `integral.costs.Costs` is one."""

    @property
    def layers(self) -> Sequence[Layer]: ...


def latency_features(costs: Costs) -> NDArray[np.float64]:
    """Features (f,) of a network: those of each layer, their sums, those of the whole, and a one;
    none is negative.

    f depends on the number of layers only, so it is the same for all widths of a network.
    """
    layers = np.array([_layer_features(layer) for layer in costs.layers], dtype=np.float64)
    params = sum(layer.params for layer in costs.layers)
    uncached = [max(0, params - cached) for cached in _CACHED_PARAMS]
    return np.concatenate([layers.reshape(-1), layers.sum(axis=0), uncached, [1.0]])


def _layer_features(layer: Layer) -> list[float]:
    features: list[float] = [
        layer.macs,
        layer.params,
        layer.input_elements,
        layer.output_elements,
        layer.output_elements * (layer.out_channels % _MULTIPLE != 0),
        layer.output_elements * (layer.out_channels % _LANES[-1] != 0),
    ]
    for lanes in _LANES:
        thin = layer.in_channels < lanes
        ragged = not thin and layer.in_channels % _MULTIPLE != 0
        blocked = not thin and not ragged
        into, out = _filling(layer.in_channels, lanes), _filling(layer.out_channels, lanes)
        features += [
            layer.macs * out * thin,
            layer.macs * out * into * blocked,
            layer.macs * ragged,
            layer.input_elements * ragged,
            layer.output_elements * out,
        ]
    return features


def _filling(channels: int, lanes: int) -> float:
    """By what factor channels grow when they are rounded up to whole vectors."""
    return -(-channels // lanes) * lanes / channels
