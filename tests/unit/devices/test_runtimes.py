from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from inn_automl.devices import runtimes
from inn_automl.errors import MeasurementError, UnknownNameError
from inn_automl.spec import RUNTIMES


def test_budgets_name_the_runtimes_that_there_are():
    assert set(RUNTIMES) == set(runtimes.NAMES)


@pytest.mark.parametrize("name", runtimes.NAMES)
def test_every_runtime_runs_a_model(name, make_conv_net):
    runtime = runtimes.create(name, 1)
    (logits,) = runtime.load(make_conv_net("m"), 5)()
    assert logits.shape == (5, 10)
    description = runtime.describe()
    assert description["runtime"] == name
    assert description["runtime_version"]


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
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "sum", ports[:2], ports[2:])
    path = tmp_path / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    with pytest.raises(MeasurementError, match="must take one float32 tensor"):
        runtimes.create("onnxruntime-cpu", 1).load(path, 1)
