"""ONNX Runtime sessions of an elastic model's points.

A session holds a copy of its weights in the layout that the processor wants, which no two sessions
can share. Making one takes 3 ms of a free core for a small ResNet, and a hundred where several
programs want it. So sessions are made ahead as far as a bound on memory allows, and beyond that
when they are needed; those that served last stay in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime

from inn_automl.core.errors import CorruptFileError
from inn_automl.export.elastic import ElasticArchive, ElasticPoint

MAX_BYTES = 64 * 2**20
"""Memory for sessions, unless the application says otherwise."""

_OVERHEAD_BYTES, _BYTES_PER_BYTE = 2**20, 1.5
"""Memory of a session itself, and per byte of its weights; measured on residual networks of 50 kB
to 45 MB.
"""


@dataclass(frozen=True)
class Serving:
    """A point and the session that runs it."""

    point: ElasticPoint
    input: str
    """Name of the model's input."""
    session: onnxruntime.InferenceSession
    weights: list[onnxruntime.OrtValue] = field(repr=False)
    """Memory that the session may use in place, so it must live as long."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """Raw float32 values (N, *input_shape) -> outputs (N, *output_shape)."""
        (output,) = self.session.run(None, {self.input: x})
        found: np.ndarray = output
        return found


class Sessions:
    """Makes sessions and keeps those of the points that were used last. For one thread at a
    time.

    Args:
        threads: within an operator.
        batch_size: of the run that warms a new session up.
        max_bytes: of memory, about, for the cached sessions; the latest one is cached in any
            case.
    """

    def __init__(
        self, file: ElasticArchive, threads: int, batch_size: int, max_bytes: int = MAX_BYTES
    ) -> None:
        self._file, self._threads, self._max_bytes = file, threads, max_bytes
        self._zeros = np.zeros((batch_size, *file.config.input.shape), np.float32)
        self._cache: OrderedDict[str, Serving] = OrderedDict()

    def get(self, point: ElasticPoint) -> Serving:
        """A point's session, that has run already.

        Raises:
            CorruptFileError: this version of ONNX Runtime cannot run it.
        """
        if point.id not in self._cache:
            self._cache[point.id] = self._make(point)
        self._cache.move_to_end(point.id)
        while (
            len(self._cache) > 1
            and _num_bytes(*(one.point for one in self._cache.values())) > self._max_bytes
        ):
            self._cache.popitem(last=False)  # runs that are under way hold on to it
        return self._cache[point.id]

    def prepare(self, points: Sequence[ElasticPoint]) -> None:
        """Makes sessions ahead for as many of the points, in their order, as may be cached.

        Raises:
            CorruptFileError: this version of ONNX Runtime cannot run one.
        """
        for number, point in enumerate(points, start=1):
            if number > 1 and _num_bytes(*points[:number]) > self._max_bytes:
                return
            self.get(point)

    def _make(self, point: ElasticPoint) -> Serving:
        weights = self._file.weights(point.id)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # its warnings are about speed
        # Threads of a session that has no run in hand would take the cores from the one that has.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_external_initializers(list(weights), values)
        try:
            session = onnxruntime.InferenceSession(
                self._file.graphs[point.id], options, providers=["CPUExecutionProvider"]
            )
            made = Serving(point, self._file.config.input.name, session, values)
            # the first run allocates memory: no request should wait for that
            made.run(self._zeros)
        except Exception as error:  # ONNX Runtime's errors share no public base class
            reason = " ".join(str(error).split())
            raise CorruptFileError(
                f"point {point.id} of {str(self._file.path)!r} cannot be run in ONNX Runtime "
                f"{onnxruntime.__version__} "
                f"({reason:.300}): install the version that it was made with, "
                f"{self._file.config.versions.get('onnxruntime', 'a newer one')}."
            ) from error
        return made


def _num_bytes(*points: ElasticPoint) -> float:
    return sum(_OVERHEAD_BYTES + _BYTES_PER_BYTE * point.size_bytes for point in points)
