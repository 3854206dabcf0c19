"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino

from inn_automl.core.errors import MeasurementError
from inn_automl.runtimes import NodeTime, RunOnce, Runtime, typical
from inn_automl.runtimes.inputs import random_input

_CONFIG = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    # Where the processor has bfloat16 the plugin would compute float32 models in it: faster, and
    # not the network whose accuracy was evaluated.
    "INFERENCE_PRECISION_HINT": "f32",
    # The models of a measurement live in one process, and pinned they would all be on the same
    # cores.
    "ENABLE_CPU_PINNING": False,
}
_KINDS = {"f32": "float"}


class OpenVino(Runtime):
    """One inference at a time, `threads` threads within it."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._core = openvino.Core()
        if "CPU" not in self._core.available_devices:
            found = ", ".join(self._core.available_devices) or "none"
            raise MeasurementError(
                f"OpenVINO has no CPU device here (devices: {found}): install it for this "
                f"processor."
            )

    def load(self, path: Path, batch_size: int) -> RunOnce:
        model, array = self._compiled(path, batch_size)
        # A call with a numpy array in and numpy arrays out is how an application does it.
        return lambda: list(model(array).values())

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "openvino",
            "runtime_version": openvino.__version__,
            "session_options": {"INFERENCE_NUM_THREADS": self.threads, **_CONFIG},
        }

    def profile(self, path: Path, batch_size: int, num_runs: int) -> list[NodeTime]:
        model, array = self._compiled(path, batch_size, {"PERF_COUNT": True})
        request = model.create_infer_request()
        seconds: dict[tuple[str, str], list[float]] = {}
        for index in range(num_runs):
            request.infer([array])
            if index < num_runs // 2:
                continue  # the first half warms up
            for info in request.profiling_info:
                if info.status == openvino.ProfilingInfo.Status.EXECUTED:
                    seconds.setdefault((info.node_name, info.node_type), []).append(
                        info.real_time.total_seconds()
                    )
        return [
            NodeTime(name, kind, 1e3 * typical(values)) for (name, kind), values in seconds.items()
        ]

    def _compiled(
        self, path: Path, batch_size: int, config: dict[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """The compiled model, which has run once, and its input."""
        try:
            model = self._core.read_model(str(path))
        except RuntimeError as error:
            raise MeasurementError(
                f"OpenVINO cannot load {str(path)!r} ({_reason(error)}): export it again."
            ) from None
        inputs = model.inputs
        shape = (
            [size.get_length() if size.is_static else str(size) for size in inputs[0].partial_shape]
            if inputs
            else []
        )
        kinds = [
            f"tensor({_KINDS.get(kind := one.element_type.get_type_name(), kind)})"
            for one in inputs
        ]
        array = random_input(path, [one.any_name for one in inputs], kinds, shape, batch_size)
        try:
            model.reshape(array.shape)
            compiled = self._core.compile_model(
                model, "CPU", {"INFERENCE_NUM_THREADS": self.threads, **_CONFIG, **(config or {})}
            )
            compiled(array)  # starts the threads, whose waiting is accounted for from then on
        except RuntimeError as error:
            raise MeasurementError(
                f"OpenVINO cannot run {str(path)!r} ({_reason(error)}): export it again."
            ) from None
        return compiled, array


def _reason(error: RuntimeError) -> str:
    return " ".join(str(error).split())[:500]


RUNTIME = OpenVino
