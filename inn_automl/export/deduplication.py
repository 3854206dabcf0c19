"""Weight deduplication: which weights of exported models are blocks of one network's weights.

With nested partitions a discretized weight is a prefix slice of the trained one. If the network is
width-conditioned, its width delta times the weight's width coordinate is added. An exported model
holds the weight with batch norm folded in, whose statistics belong to one point only: each output
channel is multiplied with a factor of its own. Blocks and factors must reproduce the exported
weight bit by bit; otherwise the weight is stored as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from safetensors.numpy import load_file, save

from inn_automl.core.errors import StorageError
from inn_automl.export.bundle import WEIGHTS
from inn_automl.export.elastic import DTYPES, TensorSlice
from inn_automl.export.inn import CONTROL_POINTS
from inn_automl.export.onnx_graph import TRANSPOSED
from inn_automl.integral import checkpoint as state

SMALLEST_BYTES = 256
"""Smaller tensors stay in the graph: saying where they are would take as many bytes."""

_IN_NETWORK, _IN_MODEL, _WIDTH_DELTA = "module.", "body.", "width_delta."
"""Prefixes of a parameter's name in control_points.safetensors and in exported graphs, and of its
width delta's."""

_TYPES = frozenset(np.dtype(dtype) for dtype in DTYPES.values())


class WeightDeduplicator:
    """Collects the weights of one model after the other.

    Args:
        control_points: the network's tensors by their names in exported graphs.
        width_deltas: those of them along the width, by the same names.
        width_coordinate: of a tensor at widths.
    """

    def __init__(
        self,
        control_points: Mapping[str, np.ndarray],
        width_deltas: Mapping[str, np.ndarray] | None = None,
        width_coordinate: Callable[[str, Mapping[str, int]], float] = lambda name, widths: 0.0,
    ) -> None:
        self._control_points, self._width_deltas, self._width_coordinate = (
            control_points,
            width_deltas or {},
            width_coordinate,
        )
        self._width_conditioned: set[str] = set()  # control points whose width delta is in use
        # the widest block of a parameter that is in use
        self._blocks: dict[str, tuple[int, ...]] = {}
        self._own: dict[str, np.ndarray] = {}
        # content of a tensor of `_own` -> its name
        self._known: dict[tuple[object, ...], str] = {}

    @classmethod
    def from_network(cls, network: str | Path) -> WeightDeduplicator:
        """Makes a deduplicator for models of the network in a folder.

        Raises:
            StorageError: it could not be read.
            CorruptFileError: it is none.
        """
        try:
            control_points = load_file(Path(network) / CONTROL_POINTS)
        except Exception as error:  # safetensors' own error has no public base class
            raise StorageError(
                f"the network in {str(network)!r} cannot be read ({error}): save it."
            ) from error
        width_deltas = _by_graph_name(control_points, _WIDTH_DELTA)
        if not width_deltas:
            return cls(_by_graph_name(control_points, _IN_NETWORK))
        _, coupling, _, _ = state.read(Path(network))

        def width_coordinate(name: str, widths: Mapping[str, int]) -> float:
            return coupling.width_coordinate(_short(name), coupling.counts(widths))

        return cls(_by_graph_name(control_points, _IN_NETWORK), width_deltas, width_coordinate)

    def add(
        self, point: str, model: bytes, widths: Mapping[str, int] | None = None
    ) -> tuple[bytes, dict[str, TensorSlice]]:
        """Adds a model; returns it without the data of its larger initializers, and their slices.

        Args:
            point: what tensors that are this model's alone are named after.
            widths: of the model; needed where the network is width-conditioned.
        """
        proto = onnx.load_from_string(model)
        slices = {}
        for initializer in proto.graph.initializer:
            values = numpy_helper.to_array(initializer)
            if values.nbytes < SMALLEST_BYTES or values.dtype not in _TYPES:
                continue
            if initializer.name.endswith(TRANSPOSED):
                part = self._part(
                    point, initializer.name.removesuffix(TRANSPOSED), values.T, widths or {}
                )
                slices[initializer.name] = part.model_copy(update={"transposed": True})
            else:
                slices[initializer.name] = self._part(point, initializer.name, values, widths or {})
            bare = TensorProto(
                name=initializer.name,
                dims=initializer.dims,
                data_type=initializer.data_type,
                data_location=TensorProto.EXTERNAL,
            )
            bare.external_data.add(key="location", value=WEIGHTS)
            initializer.CopyFrom(bare)
        return proto.SerializeToString(deterministic=True), slices

    def data(self) -> bytes:
        """weights.safetensors: the widest blocks in use, and what is no block of any."""
        blocks = {
            _short(name): np.ascontiguousarray(_block(self._control_points[name], shape))
            for name, shape in self._blocks.items()
        }
        width_deltas = {
            _WIDTH_DELTA + _short(name): np.ascontiguousarray(
                _block(self._width_deltas[name], self._blocks[name])
            )
            for name in sorted(self._width_conditioned)
        }
        return save(blocks | width_deltas | self._own)

    def _part(
        self, point: str, name: str, values: np.ndarray, widths: Mapping[str, int]
    ) -> TensorSlice:
        # A tied weight may have another of its names in the network than in the graph.
        for parameter in [name] if name in self._control_points else self._control_points:
            if not _holds(self._control_points[parameter], values):
                continue
            block, width_coordinate = _block(self._control_points[parameter], values.shape), 0.0
            if (
                parameter in self._width_deltas
                and (width_coordinate := self._width_coordinate(parameter, widths)) > 0
            ):
                block = block + block.dtype.type(width_coordinate) * _block(
                    self._width_deltas[parameter], values.shape
                )
            is_equal = np.array_equal(block, values)
            factors = None if is_equal else _factors(block, values)
            if is_equal or factors is not None:
                widest = self._blocks.get(parameter, values.shape)
                self._blocks[parameter] = tuple(
                    max(pair) for pair in zip(widest, values.shape, strict=True)
                )
                scale = (
                    None
                    if factors is None
                    else self._keep(f"{point}/{_short(name)}.scale", factors)
                )
                if width_coordinate == 0:
                    return TensorSlice(tensor=_short(parameter), shape=values.shape, scale=scale)
                self._width_conditioned.add(parameter)
                width_delta = _WIDTH_DELTA + _short(parameter)
                return TensorSlice(
                    tensor=_short(parameter),
                    shape=values.shape,
                    width_delta=width_delta,
                    width_coordinate=width_coordinate,
                    scale=scale,
                )
        return TensorSlice(tensor=self._keep(f"{point}/{_short(name)}", values), shape=values.shape)

    def _keep(self, name: str, values: np.ndarray) -> str:
        """The name of the tensor with these values: a new one, or that of an equal one."""
        content = (values.dtype.str, values.shape, values.tobytes())
        if content not in self._known:
            self._known[content] = name
            self._own[name] = np.ascontiguousarray(values)
        return self._known[content]


def _by_graph_name(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        _IN_MODEL + name.removeprefix(prefix): v
        for name, v in tensors.items()
        if name.startswith(prefix)
    }


def _short(name: str) -> str:
    return name.removeprefix(_IN_MODEL)


def _holds(parameter: np.ndarray, values: np.ndarray) -> bool:
    same_kind = parameter.dtype == values.dtype and parameter.ndim == values.ndim > 0
    return same_kind and all(n <= m for n, m in zip(values.shape, parameter.shape, strict=True))


def _block(parameter: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return parameter[tuple(slice(size) for size in shape)]


def _factors(block: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """(C,) with `block * factors == values` bit by bit along the first dimension; None if there
    are no such factors.
    """
    if values[0].size < 2:  # the factors would be as many as the values
        return None
    rows = block.reshape(len(block), -1).astype(np.float64)
    squares = (rows * rows).sum(1)
    products = (rows * values.reshape(len(values), -1)).sum(1)
    # Least squares finds the factor that all values were multiplied with, but for its last digit.
    factors = np.divide(products, squares, out=np.ones_like(squares), where=squares > 0).astype(
        block.dtype
    )
    for neighbors in (np.nextafter(factors, np.inf), np.nextafter(factors, -np.inf)):
        better = ~_are_off(block, neighbors, values) & _are_off(block, factors, values)
        factors = np.where(better, neighbors, factors)
    return None if _are_off(block, factors, values).any() else factors


def _are_off(block: np.ndarray, factors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(C,) whether a factor does not give the values of its row."""
    product = block * factors.reshape(-1, *[1] * (block.ndim - 1))
    return (product != values).reshape(len(block), -1).any(1)
