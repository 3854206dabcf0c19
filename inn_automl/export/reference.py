"""Makes the reference model that `devices.reference` ships: `python -m inn_automl.export.reference
PATH`.

Two things that neighbours take away are in it: arithmetic (two 3x3 convolutions, about five
million multiply-accumulates, whose data stay in a core's own caches) and memory traffic (a product
with a 4 MiB matrix, which no core's own cache holds). The matrix is a constant that the runtime
fills in, so that the file stays small. The weights are a low-discrepancy sequence and not random
numbers: every machine makes the same file, byte by byte.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE, MATRIX_SIDE = 16, 32, 1024
_GOLDEN_RATIO = 0.6180339887498949


def reference_bytes() -> bytes:
    """The ONNX file."""
    square = numpy_helper.from_array(np.array([MATRIX_SIDE, MATRIX_SIDE], dtype=np.int64), "square")
    value = numpy_helper.from_array(np.array([1 / MATRIX_SIDE], dtype=np.float32))
    convolution: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "weight0"], ["conv0"], **convolution),
        helper.make_node("Relu", ["conv0"], ["relu0"]),
        helper.make_node("Conv", ["relu0", "weight1"], ["conv1"], **convolution),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("AveragePool", ["relu1"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("ConstantOfShape", ["square"], ["matrix"], value=value),
        helper.make_node("MatMul", ["flat", "matrix"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "reference",
        [
            helper.make_tensor_value_info(
                "input", TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE]
            )
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", MATRIX_SIDE])],
        [square, *(numpy_helper.from_array(_weights(), f"weight{index}") for index in range(2))],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name=""
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _weights() -> NDArray[np.float32]:
    shape = (CHANNELS, CHANNELS, 3, 3)
    sequence = np.arange(1, np.prod(shape) + 1) * _GOLDEN_RATIO % 1.0 - 0.5
    return (sequence / CHANNELS).astype(np.float32).reshape(shape)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(reference_bytes())
