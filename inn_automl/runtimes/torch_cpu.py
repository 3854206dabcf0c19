"""torch on the CPU."""

from __future__ import annotations

from inn_automl.runtimes.torch_eager import TorchEager


class TorchCpu(TorchEager):
    """`threads` threads within an operation."""

    name = "torch-cpu"
    device = "cpu"


RUNTIME = TorchCpu
