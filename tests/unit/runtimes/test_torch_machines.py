"""The torch runtimes on machines with and without torch, a GPU, or a torch that can use it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError
from inn_automl.runtimes import torch_cuda
from inn_automl.runtimes.torch_cuda import TorchCuda

BACKENDS = (torch.backends.cudnn, torch.backends.cuda.matmul)


def test_threads_are_those_asked_for(make_conv_net: Any) -> None:
    runtimes.create("torch-cpu", 2).load(make_conv_net("m"), 1)
    assert torch.get_num_threads() == 2


def test_asking_what_there_is_does_not_load_torch() -> None:
    code = (
        "import sys; from inn_automl.runtimes import probe; "
        "print(*probe()[0], 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch-cpu" in ended.stdout and ended.stdout.strip().endswith("False")


def test_a_machine_without_torch_is_told_what_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        MeasurementError,
        match=r"'torch-cpu' is not installed.*no onnx.*`pip install torch onnx` adds",
    ):
        runtimes.create("torch-cpu", 1)


def test_a_machine_without_a_gpu_or_with_a_torch_that_cannot_use_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_cuda, "cuda_devices", list)
    with pytest.raises(MeasurementError, match="'torch-cuda' finds no NVIDIA GPU"):
        runtimes.create("torch-cuda", 1)
    monkeypatch.setattr(torch_cuda, "cuda_devices", lambda: ["Orin"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        MeasurementError, match=r"torch .* cannot use Orin; `pip install torch onnx` adds it"
    ):
        runtimes.create("torch-cuda", 1)


def test_a_gpu_is_timed_from_main_memory_to_main_memory(
    monkeypatch: pytest.MonkeyPatch, make_conv_net: Any
) -> None:
    """With the CPU in the GPU's place: what it does beside computing there."""
    monkeypatch.setattr(torch_cuda, "cuda_devices", lambda: ["Orin"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(TorchCuda, "device", "cpu")
    waits: list[None] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(None))
    for backend in BACKENDS:
        backend.allow_tf32 = True
    runtime = runtimes.create("torch-cuda", 1)
    (found,) = runtime.load(make_conv_net("m"), 2)()
    assert isinstance(found, np.ndarray) and found.shape == (2, 10)
    assert not any(backend.allow_tf32 for backend in BACKENDS)
    described = runtime.describe()
    assert (described["gpu"], described["session_options"]["allow_tf32"]) == ("Orin", False)
    nodes = runtime.profile(make_conv_net("m"), 1, 4)
    assert len(waits) == 4 * len(nodes)
