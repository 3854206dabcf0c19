"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import ClassVar

from inn_automl.runtimes.onnx_session import OnnxRuntime, Provider


class OnnxRuntimeCpu(OnnxRuntime):
    """One inference at a time, `threads` threads within an operator, operators in sequence."""

    name = "onnxruntime-cpu"
    session_config: ClassVar[dict[str, str]] = {
        # Between two parallel sections of one run a thread that spins is faster than one that must
        # be woken; this is ONNX Runtime's default, so also what an application gets.
        "session.intra_op.allow_spinning": "1",
        # When a run is over its threads must stop: the sessions of all models live in one process,
        # and threads that spin on for a model that has had its turn would take the cores from the
        # model that is being timed.
        "session.force_spinning_stop": "1",
    }

    def providers(self) -> list[Provider]:
        return [("CPUExecutionProvider", {})]


RUNTIME = OnnxRuntimeCpu
