"""Base class of torch's two runtimes: the ONNX file as a torch program, run eagerly.

torch is imported when a model is about to be loaded. Whether it can be used on a machine is known
without, and a device agent should not hold 200 MB for having looked.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from inn_automl.core.errors import MeasurementError
from inn_automl.core.runtimes import RUNTIMES
from inn_automl.runtimes import NodeTime, RunOnce, Runtime, typical
from inn_automl.runtimes.inputs import random_input

if TYPE_CHECKING:
    from inn_automl.runtimes.torch_model import Step, TorchModel


class TorchEager(Runtime):
    """One inference at a time, one operation after another, from a numpy array to a numpy array.

    That is what an application pays that serves with torch and does not compile. The file is
    computed, not a module of our code, so that it is the same model as in every other runtime.
    """

    name: ClassVar[str]
    """Name of the runtime in budgets."""
    device: ClassVar[str]

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        missing = [name for name in ("torch", "onnx") if importlib.util.find_spec(name) is None]
        if missing:
            raise MeasurementError(
                f"the runtime {self.name!r} is not installed on this machine (no "
                f"{' and no '.join(missing)}): "
                f"`{RUNTIMES[self.name].install}` adds it."
            )

    def start(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        torch.zeros(1, device=self.device)  # starts what the device needs

    def load(self, path: Path, batch_size: int) -> RunOnce:
        self.start()
        import torch

        model, array = self._loaded(path, batch_size)

        def run() -> list[Any]:
            with torch.inference_mode():
                # Copying back waits for the result.
                return [model(torch.from_numpy(array).to(self.device)).cpu().numpy()]

        return run

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": self.name,
            "runtime_version": importlib.metadata.version("torch"),
            "session_options": {"num_threads": self.threads, "compiled": False},
        }

    def profile(self, path: Path, batch_size: int, num_runs: int) -> list[NodeTime]:
        self.start()
        import torch

        model, array = self._loaded(path, batch_size)
        x = torch.from_numpy(array).to(self.device)
        seconds: dict[tuple[str, str], list[float]] = {}

        def timed(step: Step, inputs: list[Any]) -> Any:
            started_s = time.perf_counter()
            found = step.compute(*inputs)
            self._wait()
            seconds.setdefault((step.name, step.kind), []).append(time.perf_counter() - started_s)
            return found

        with torch.inference_mode():
            for _ in range(num_runs):
                model.run(x, timed)
        # the first half warms up
        later = {key: values[num_runs // 2 :] for key, values in seconds.items()}
        return [
            NodeTime(name, kind, 1e3 * typical(values)) for (name, kind), values in later.items()
        ]

    def _wait(self) -> None:
        """Waits until the device has finished all its work."""

    def _loaded(self, path: Path, batch_size: int) -> tuple[TorchModel, NDArray[np.float32]]:
        """The model, which has run once, and its input."""
        import onnx
        import torch

        from inn_automl.runtimes.torch_model import TorchModel

        try:
            proto = onnx.load(str(path))
            ports = [(port.name, port.type.tensor_type) for port in proto.graph.input]
        except Exception as error:  # those of reading and protobuf's, which share no base class
            raise _cannot_load(path, error) from None
        kinds = [onnx.TensorProto.DataType.Name(kind.elem_type).lower() for _, kind in ports]
        shape = [
            size.dim_value if size.HasField("dim_value") else size.dim_param
            for size in (ports[0][1].shape.dim if ports else ())
        ]
        names = [name for name, _ in ports]
        array = random_input(path, names, [f"tensor({kind})" for kind in kinds], shape, batch_size)
        try:
            return TorchModel(proto, torch.from_numpy(array).to(self.device)), array
        except MeasurementError as error:
            raise MeasurementError(f"torch cannot load {str(path)!r}: {error}") from None
        except Exception as error:  # whatever torch raises for shapes that do not fit
            raise _cannot_load(path, error) from None


def _cannot_load(path: Path, error: Exception) -> MeasurementError:
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    return MeasurementError(f"torch cannot load {str(path)!r} ({reason}): export it again.")
