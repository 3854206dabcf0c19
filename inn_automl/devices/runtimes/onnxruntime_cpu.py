"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from inn_automl.devices.runtimes import RunOnce, Runtime
from inn_automl.errors import MeasurementError

_SESSION_CONFIG = {
    # Between two parallel sections of one run a thread that spins is faster than one that must be woken; this is ONNX
    # Runtime's default, so also what an application gets.
    "session.intra_op.allow_spinning": "1",
    # When a run is over its threads must stop: the sessions of all models live in one process, and threads that spin on
    # for a model that has had its turn would take the cores from the model that is being timed.
    "session.force_spinning_stop": "1",
}


class OnnxRuntimeCpu(Runtime):
    """One inference at a time, `threads` threads within an operator, operators one after another."""

    precisions = ("fp32", "int8")

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._options.log_severity_level = 3
        for key, value in _SESSION_CONFIG.items():
            self._options.add_session_config_entry(key, value)

    def load(self, path: Path, batch_size: int) -> RunOnce:
        try:
            session = onnxruntime.InferenceSession(str(path), self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            reason = " ".join(str(error).split())
            raise MeasurementError(f"ONNX Runtime cannot load {str(path)!r} ({reason}): export it again.") from None
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{i.name}: {i.type}" for i in inputs) or "no input"
            raise MeasurementError(f"{str(path)!r} takes {found}: a model to be timed must take one float32 tensor.")
        shape = [batch_size, *inputs[0].shape[1:]]
        if not inputs[0].shape or not all(isinstance(size, int) for size in shape):
            raise MeasurementError(
                f"{str(path)!r} takes an input of shape {inputs[0].shape}: only its first dimension, the batch, may be "
                "symbolic; export it with the other sizes fixed."
            )
        feed = {inputs[0].name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
        # `run` with numpy arrays in and out is how an application calls it, so its cost belongs to the latency.
        return lambda: session.run(None, feed)

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "onnxruntime-cpu",
            "runtime_version": onnxruntime.__version__,
            "session_options": {
                "intra_op_num_threads": self.threads,
                "inter_op_num_threads": 1,
                "execution_mode": "sequential",
                **_SESSION_CONFIG,
            },
        }
