from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError, UnknownNameError
from inn_automl.core.runtimes import RUNTIMES
from inn_automl.runtimes import nvidia, onnxruntime_cuda, onnxruntime_tensorrt


def test_every_name_has_a_module_and_every_runtime_a_name():
    files = Path(runtimes.__file__).parent.glob("*.py")
    modules = {path.stem for path in files if "\nRUNTIME = " in path.read_text(encoding="utf-8")}
    assert modules == {name.replace("-", "_") for name in RUNTIMES}


INSTALLED = tuple(runtimes.probe()[0])


def test_every_runtime_has_a_line_that_installs_it():
    assert all(info.install and "fp32" in info.precisions for info in RUNTIMES.values())


@pytest.mark.parametrize("name", INSTALLED)
def test_every_runtime_runs_a_model(name, make_conv_net):
    runtime = runtimes.create(name, 1)
    path = make_conv_net("m")
    (logits,) = runtime.load(path, 5)()
    assert logits.shape == (5, 10)
    (expected,) = runtimes.create("onnxruntime-cpu", 1).load(path, 5)()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    description = runtime.describe()
    assert description["runtime"] == name
    assert description["runtime_version"]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_runtime_refuses_what_is_no_model(name, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no protobuf")
    with pytest.raises(MeasurementError, match="cannot load"):
        runtimes.create(name, 1).load(path, 1)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_runtime_refuses_sizes_that_are_not_known(name, make_conv_net):
    with pytest.raises(
        MeasurementError, match="only its first dimension, the batch, may be symbolic"
    ):
        runtimes.create(name, 1).load(make_conv_net("m", size="side"), 1)


@pytest.mark.parametrize("name", INSTALLED)
def test_accounted_operations_are_those_of_the_model(name, make_conv_net):
    nodes = runtimes.create(name, 1).profile(make_conv_net("m", (4, 8, 16)), 1, 6)
    assert sum("Conv" in node.kind for node in nodes) == 3
    assert all(node.ms >= 0 for node in nodes)
    assert sum(node.ms for node in nodes) > 0


def test_what_is_typical_is_not_what_an_interruption_makes_of_it():
    assert runtimes.typical([1.0, 2.0, 3.0, 1000.0]) == 2.5
    assert runtimes.typical([7.0]) == 7.0


def test_a_runtime_that_is_not_installed_says_what_adds_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "inn_automl.runtimes.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MeasurementError, match=r"'openvino' is not installed.*`pip install openvino` adds it"
    ):
        runtimes.create("openvino", 1)
    versions, reasons = runtimes.probe()
    assert versions["onnxruntime-cpu"] == onnxruntime.__version__
    assert "pip install openvino" in reasons["openvino"]
    assert set(versions) | set(reasons) == set(RUNTIMES)


def test_input_is_the_same_for_the_same_shape(make_conv_net):
    path = make_conv_net("m")
    runtime = runtimes.create("onnxruntime-cpu", 1)
    first, again = (runtime.load(path, 2)()[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.ptp(first) > 0


def test_unknown_runtime_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'onnxruntime-cpu'"):
        runtimes.create("onnxruntime", 1)


def test_cpu_runtime_uses_the_threads_asked_for(make_conv_net, monkeypatch):
    used = []
    session = onnxruntime.InferenceSession

    def record(path, options, **keywords):
        used.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return session(path, options, **keywords)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    runtimes.create("onnxruntime-cpu", 2).load(make_conv_net("m"), 1)
    assert used == [(2, 1)]


def test_model_with_two_inputs(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "abc"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "sum", ports[:2], ports[2:]
    )
    path = tmp_path / "sum.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(path),
    )
    with pytest.raises(MeasurementError, match="must take one float32 tensor"):
        runtimes.create("onnxruntime-cpu", 1).load(path, 1)


class GpuSession:
    """An `InferenceSession` as onnxruntime-gpu's: it starts with the providers that it can, and
    says which.
    """

    startable: tuple[str, ...] = ()
    asked: list[Any] = []  # noqa: RUF012 - emptied by the fixture
    may_fall_back = True
    metadata: dict[str, str] = {}  # noqa: RUF012 - of the model

    def __init__(self, path: str, options: Any = None, *, providers: list[Any]) -> None:
        if providers != ["CPUExecutionProvider"]:  # which is asked for the metadata alone
            self.asked.append(providers)
            self._used = [name for name, _ in providers if name in self.startable]

    def get_modelmeta(self) -> Any:
        return type("Meta", (), {"custom_metadata_map": self.metadata})

    def get_providers(self) -> list[str]:
        return [*self._used, "CPUExecutionProvider"]

    def disable_fallback(self) -> None:
        self.may_fall_back = False

    def get_inputs(self) -> list[Any]:
        port = type("Port", (), {"name": "input", "type": "tensor(float)", "shape": ["batch", 3]})
        return [port()]

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
        assert not self.may_fall_back
        return [feed["input"]]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with onnxruntime-gpu and one GPU."""
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", GpuSession)
    monkeypatch.setattr(onnxruntime_cuda, "cuda_devices", lambda: ["Orin"])
    monkeypatch.setattr(onnxruntime_tensorrt, "ENGINES", tmp_path / "engines")
    monkeypatch.setattr(GpuSession, "startable", tuple(available[:2]))
    monkeypatch.setattr(GpuSession, "asked", [])
    return available


@pytest.mark.parametrize(
    ("name", "providers"),
    [
        ("onnxruntime-cuda", ["CUDAExecutionProvider"]),
        ("onnxruntime-tensorrt", ["TensorrtExecutionProvider", "CUDAExecutionProvider"]),
    ],
)
def test_a_gpu_computes_what_a_gpu_is_asked_for(gpu, tmp_path, name, providers):
    runtime = runtimes.create(name, 2)
    (result,) = runtime.load(tmp_path / "m.onnx", 4)()
    assert result.shape == (4, 3)
    assert [provider for provider, _ in GpuSession.asked[0]] == providers
    described = runtime.describe()
    assert (described["runtime"], described["gpu"]) == (name, "Orin")
    assert described["session_options"]["CUDAExecutionProvider"]["use_tf32"] == "0"


def test_tensorrt_computes_in_float16_what_a_file_has_in_float16(gpu, monkeypatch, tmp_path):
    runtime = runtimes.create("onnxruntime-tensorrt", 1)
    for metadata in (
        {},
        {"inn_automl.precision": "fp16"},
        {"inn_automl.precision": "int8"},
    ):
        monkeypatch.setattr(GpuSession, "metadata", metadata)
        runtime.load(tmp_path / "m.onnx", 1)
    assert [asked[0][1]["trt_fp16_enable"] for asked in GpuSession.asked] == ["0", "1", "0"]


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_the_cpu_is_never_timed_in_a_gpus_place(gpu, monkeypatch, tmp_path, name):
    first = {"onnxruntime-cuda": "CUDA", "onnxruntime-tensorrt": "Tensorrt"}[
        name
    ] + "ExecutionProvider"
    others = tuple(provider for provider in GpuSession.startable if provider != first)
    monkeypatch.setattr(GpuSession, "startable", others)
    with pytest.raises(MeasurementError, match=f"{first} could not start"):
        runtimes.create(name, 1).load(tmp_path / "m.onnx", 1)


def test_a_gpu_runtime_without_its_package_or_without_a_gpu(gpu, monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "cuda_devices", list)
    with pytest.raises(MeasurementError, match="no NVIDIA GPU on this machine"):
        runtimes.create("onnxruntime-cuda", 1)
    gpu.remove("CUDAExecutionProvider")
    with pytest.raises(MeasurementError, match="pip install onnxruntime-gpu` adds it"):
        runtimes.create("onnxruntime-cuda", 1)


class Driver:
    """libcuda, as far as it is asked."""

    def __init__(self, names: list[bytes], fault: int = 0) -> None:
        self._names, self._fault = names, fault

    def cuInit(self, flags: int) -> int:
        return self._fault

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._names)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        name.value = self._names[handle.value]
        return 0


def test_gpus_are_those_that_the_driver_names(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver([b"A", b"B"]))
    assert nvidia.cuda_devices() == ["A", "B"]
    # CUDA_ERROR_NO_DEVICE
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver([b"A"], fault=100))
    assert nvidia.cuda_devices() == []

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvidia.cuda_devices() == []
