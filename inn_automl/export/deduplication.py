"""Which weights of exported models are blocks of one network's weights: what several models of it
share.

With nested partitions a discretized weight is the leading block of the trained one, and where the
network has width_deltas, that of its width_delta times the weight's width_coordinate is added. An exported model
holds it with batch normalization folded in, whose statistics belong to one point only: each output
channel is multiplied with a factor of its own. Blocks and factors give the exported weight back
bit by bit, or else it is kept as it is.
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
"""What stands before a parameter's name in control_points.safetensors and in exported graphs; and before
its width_delta's.
"""

_TYPES = frozenset(np.dtype(dtype) for dtype in DTYPES.values())


class WeightDeduplicator:
    """Collects the weights of one model after the other.

    Args:
        nodes: the network's tensors by their names in exported graphs.
        width_deltas: those of them along the width, by the same names.
        width_coordinate: of a tensor at widths.
    """

    def __init__(
        self,
        nodes: Mapping[str, np.ndarray],
        width_deltas: Mapping[str, np.ndarray] | None = None,
        width_coordinate: Callable[[str, Mapping[str, int]], float] = lambda name, widths: 0.0,
    ) -> None:
        self._nodes, self._width_deltas, self._width_coordinate = (
            nodes,
            width_deltas or {},
            width_coordinate,
        )
        self._sloping: set[str] = set()  # nodes whose width_delta is in use
        self._blocks: dict[str, tuple[int, ...]] = {}  # the widest block of a node that is in use
        self._own: dict[str, np.ndarray] = {}
        # content of a tensor of `_own` -> its name
        self._known: dict[tuple[object, ...], str] = {}

    @classmethod
    def of(cls, network: str | Path) -> WeightDeduplicator:
        """For models that were made from the network in a folder.

        Raises:
            StorageError: it could not be read.
            CorruptFileError: it is none.
        """
        try:
            nodes = load_file(Path(network) / CONTROL_POINTS)
        except Exception as error:  # safetensors' own error has no public base class
            raise StorageError(
                f"the network in {str(network)!r} cannot be read ({error}): save it."
            ) from error
        width_deltas = _by_graph_name(nodes, _WIDTH_DELTA)
        if not width_deltas:
            return cls(_by_graph_name(nodes, _IN_NETWORK))
        _, coupling, _, _ = state.read(Path(network))

        def width_coordinate(name: str, widths: Mapping[str, int]) -> float:
            return coupling.width_coordinate(_short(name), coupling.counts(widths))

        return cls(_by_graph_name(nodes, _IN_NETWORK), width_deltas, width_coordinate)

    def take(
        self, point: str, model: bytes, widths: Mapping[str, int] | None = None
    ) -> tuple[bytes, dict[str, TensorSlice]]:
        """An ONNX model without the data of its larger initializers, and what these are slices of.

        Args:
            point: what tensors that are this model's alone are named after.
            widths: of the model; needed where the network has width_deltas.
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
            _short(name): np.ascontiguousarray(_block(self._nodes[name], shape))
            for name, shape in self._blocks.items()
        }
        width_deltas = {
            _WIDTH_DELTA + _short(name): np.ascontiguousarray(
                _block(self._width_deltas[name], self._blocks[name])
            )
            for name in sorted(self._sloping)
        }
        return save(blocks | width_deltas | self._own)

    def _part(
        self, point: str, name: str, values: np.ndarray, widths: Mapping[str, int]
    ) -> TensorSlice:
        # A tied weight may have another of its names in the network than in the graph.
        for node in [name] if name in self._nodes else self._nodes:
            if not _holds(self._nodes[node], values):
                continue
            block, width_coordinate = _block(self._nodes[node], values.shape), 0.0
            if (
                node in self._width_deltas
                and (width_coordinate := self._width_coordinate(node, widths)) > 0
            ):
                block = block + block.dtype.type(width_coordinate) * _block(
                    self._width_deltas[node], values.shape
                )
            is_equal = np.array_equal(block, values)
            factors = None if is_equal else _factors(block, values)
            if is_equal or factors is not None:
                widest = self._blocks.get(node, values.shape)
                self._blocks[node] = tuple(
                    max(pair) for pair in zip(widest, values.shape, strict=True)
                )
                scale = (
                    None
                    if factors is None
                    else self._keep(f"{point}/{_short(name)}.scale", factors)
                )
                if width_coordinate == 0:
                    return TensorSlice(tensor=_short(node), shape=values.shape, scale=scale)
                self._sloping.add(node)
                width_delta = _WIDTH_DELTA + _short(node)
                return TensorSlice(
                    tensor=_short(node),
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


def _holds(node: np.ndarray, values: np.ndarray) -> bool:
    same_kind = node.dtype == values.dtype and node.ndim == values.ndim > 0
    return same_kind and all(n <= m for n, m in zip(values.shape, node.shape, strict=True))


def _block(node: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return node[tuple(slice(size) for size in shape)]


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
