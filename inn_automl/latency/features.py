"""Features of a network that its latency is predicted from; they follow from its widths alone.

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

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.costs import LayerCost

_LANES = (8, 16)
_MULTIPLE = 4
_CACHED_PARAMS = tuple(2**exponent for exponent in (14, 16, 17, 18, 19, 20))
"""Float32 weights that fit into caches of 64 KiB to 4 MiB."""


def latency_features(layers: Sequence[LayerCost]) -> NDArray[np.float64]:
    """Features (f,) of a network, none of them negative.

    They are the features of each layer, their sums over the layers, features of the whole network
    and a one. f depends on the number of layers only: it is the same for all widths of a network.

    Args:
        layers: in the order of the network.
    """
    rows = np.array([_layer_features(layer) for layer in layers], dtype=np.float64)
    params = sum(layer.params for layer in layers)
    uncached = [max(0, params - cached) for cached in _CACHED_PARAMS]
    return np.concatenate([rows.reshape(-1), rows.sum(axis=0), uncached, [1.0]])


def _layer_features(layer: LayerCost) -> list[float]:
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
    """Factor by which channels grow when they are rounded up to whole vectors."""
    return -(-channels // lanes) * lanes / channels
