from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError
from inn_automl.export.layers import INPUT, layer_times
from inn_automl.runtimes import NodeTime


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Standardizing, a convolution with ReLU, one whose weight is stored as integers, and a linear
    layer.
    """
    weights = {
        "standardize.mean": np.zeros((1, 1, 1, 1), np.float32),
        "body.a.weight": np.ones((4, 1, 3, 3), np.float32),
        "body.b.weight_quantized": np.ones((4, 4, 3, 3), np.int8),
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "body.c.weight": np.ones((4 * 4 * 4, 2), np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["input", "standardize.mean"], ["sub"], "Sub_0"),
        helper.make_node("Conv", ["sub", "body.a.weight"], ["conv"], "Conv_1"),
        helper.make_node("Relu", ["conv"], ["relu"], "Relu_2"),
        helper.make_node(
            "DequantizeLinear", ["body.b.weight_quantized", "scale", "zero"], ["b"], "Dequantize_3"
        ),
        helper.make_node("Conv", ["relu", "b"], ["conv_1"], "Conv_4"),
        helper.make_node("Relu", ["conv_1"], ["relu_1"], "Relu_5"),
        helper.make_node("Flatten", ["relu_1"], ["flat"], "Flatten_6"),
        helper.make_node("MatMul", ["flat", "body.c.weight"], ["logits"], "MatMul_7"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        str(path),
    )
    return path


def test_operations_are_counted_with_the_layer_whose_parameters_they_use_or_follow(
    model: Path,
) -> None:
    nodes = [
        NodeTime("Sub_0", "Sub", 1.0),
        NodeTime("ReorderInput", "ReorderInput", 1.0),  # added by the runtime
        NodeTime("relu_nchwc", "Conv", 2.0),  # named after what it computes
        # named after the first of what was fused
        NodeTime("Conv_4/WithoutBiases", "Convolution", 3.0),
        NodeTime("ReorderOutput_token_17", "ReorderOutput", 1.0),
        NodeTime("fused MatMul_7", "FusedGemm", 2.0),
    ]
    layers = layer_times(model, nodes)
    assert [(layer.name, layer.fraction) for layer in layers] == [
        (INPUT, 0.2),
        ("body.a", 0.2),
        ("body.b", 0.4),
        ("body.c", 0.2),
    ]


@pytest.mark.parametrize(
    "name", [name for name in runtimes.probe()[0] if not name.startswith("torch")]
)
def test_layers_are_found_in_what_runtimes_account_for(model: Path, name: str) -> None:
    layers = layer_times(model, runtimes.create(name, 1).profile(model, 1, 6))
    assert (
        {"body.a", "body.b", "body.c"}
        <= {layer.name for layer in layers}
        <= {INPUT, "body.a", "body.b", "body.c"}
    )
    assert sum(layer.fraction for layer in layers) == pytest.approx(1.0)


def test_torch_runs_no_weights_that_are_stored_as_integers(model: Path) -> None:
    with pytest.raises(
        MeasurementError, match="no operator 'DequantizeLinear': use an ONNX Runtime one"
    ):
        runtimes.create("torch-cpu", 1).profile(model, 1, 6)


def test_nothing_accounted_is_no_layers(model: Path) -> None:
    assert layer_times(model, []) == []
