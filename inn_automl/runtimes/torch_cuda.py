"""torch on an NVIDIA GPU."""

from __future__ import annotations

from typing import Any

from inn_automl.core.errors import MeasurementError
from inn_automl.core.runtimes import RUNTIMES
from inn_automl.runtimes.nvidia import cuda_devices
from inn_automl.runtimes.torch_eager import TorchEager


class TorchCuda(TorchEager):
    """The first GPU; the copies there and back belong to a latency."""

    name = "torch-cuda"
    device = "cuda"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        devices = cuda_devices()
        if not devices:
            raise MeasurementError(
                f"the runtime {self.name!r} finds no NVIDIA GPU on this machine: check "
                f"`nvidia-smi`, and that the "
                "container, if there is one, was given the GPU."
            )
        self._gpu = devices[0]
        import torch

        if not torch.cuda.is_available():
            raise MeasurementError(
                f"the runtime {self.name!r} is not installed on this machine: torch "
                f"{torch.__version__} cannot use "
                f"{self._gpu}; `{RUNTIMES[self.name].install}` adds it."
            )

    def start(self) -> None:
        import torch

        # Accuracy was evaluated in float32, and TF32 is another arithmetic.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        super().start()

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        return {
            **described,
            "session_options": {**described["session_options"], "allow_tf32": False},
            "gpu": self._gpu,
        }

    def _wait(self) -> None:
        import torch

        torch.cuda.synchronize()


RUNTIME = TorchCuda
