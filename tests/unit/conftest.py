"""Small ONNX files, made without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

MakeConvNet = Callable[..., Path]


@pytest.fixture
def make_conv_net(tmp_path: Path) -> MakeConvNet:
    """Writes a network of 3x3 convolutions with ReLU, average pooling and a linear layer, of the
    given widths.
    """

    def make(
        name: str,
        widths: Sequence[int] = (4, 8),
        *,
        size: int | str = 8,
        batch: int | str = "batch",
        dtype: int = TensorProto.FLOAT,
    ) -> Path:
        rng = np.random.default_rng(0)
        initializers, nodes, value, channels = [], [], "input", 1
        for index, width in enumerate(widths):
            weight = rng.standard_normal((width, channels, 3, 3), dtype=np.float32)
            initializers.append(numpy_helper.from_array(weight, f"weight{index}"))
            nodes.append(
                helper.make_node(
                    "Conv",
                    [value, f"weight{index}"],
                    [f"conv{index}"],
                    kernel_shape=[3, 3],
                    pads=[1] * 4,
                )
            )
            nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]))
            value, channels = f"relu{index}", width
        initializers.append(
            numpy_helper.from_array(rng.standard_normal((channels, 10), dtype=np.float32), "linear")
        )
        nodes += [
            helper.make_node("GlobalAveragePool", [value], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "linear"], ["logits"]),
        ]
        if dtype != TensorProto.FLOAT:
            nodes.insert(0, helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT))
            nodes[1].input[0] = "cast"
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("input", dtype, [batch, 1, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])],
            initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, str(path))
        return path

    return make
