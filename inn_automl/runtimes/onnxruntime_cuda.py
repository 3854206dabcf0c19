"""ONNX Runtime on an NVIDIA GPU: `CUDAExecutionProvider` of the package onnxruntime-gpu."""

from __future__ import annotations

from typing import Any

import onnxruntime

from inn_automl.core.errors import MeasurementError
from inn_automl.core.runtimes import RUNTIMES
from inn_automl.runtimes.nvidia import cuda_devices
from inn_automl.runtimes.onnx_session import OnnxRuntime, Provider

CUDA: Provider = (
    "CUDAExecutionProvider",
    # Accuracy was evaluated in float32, and TF32 is another arithmetic.
    {"device_id": "0", "use_tf32": "0"},
)


class OnnxRuntimeCuda(OnnxRuntime):
    """Latency from numpy arrays in the main memory to numpy arrays there: the copies to the GPU
    and back belong to it.

    An operation that the provider does not have runs on the CPU, as it would in an application.
    """

    name = "onnxruntime-cuda"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        provider = self.providers()[0][0]
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise MeasurementError(
                f"the runtime {self.name!r} is not installed on this machine: ONNX Runtime has no "
                f"{provider} here, "
                f"only {', '.join(available)}; `{RUNTIMES[self.name].install}` adds it."
            )
        devices = cuda_devices()
        if not devices:
            raise MeasurementError(
                f"the runtime {self.name!r} finds no NVIDIA GPU on this machine: check "
                f"`nvidia-smi`, and that the "
                "container, if there is one, was given the GPU."
            )
        self._gpu = devices[0]

    def providers(self) -> list[Provider]:
        return [CUDA]

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "gpu": self._gpu}


RUNTIME = OnnxRuntimeCuda
