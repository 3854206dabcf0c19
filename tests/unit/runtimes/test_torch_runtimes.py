"""The torch runtimes compute what ONNX Runtime computes of the same file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from inn_automl import runtimes
from inn_automl.core.errors import MeasurementError
from inn_automl.export import export_onnx
from inn_automl.models import FAMILIES, build
from inn_automl.runtimes import torch_operators
from inn_automl.runtimes.torch_model import TorchModel

RELATIVE = 2e-6
"""Largest accepted difference, as a fraction of the largest output: both compute in float32."""


def agree(path: Path, batch_size: int) -> None:
    (expected,) = runtimes.create("onnxruntime-cpu", 1).load(path, batch_size)()
    (found,) = runtimes.create("torch-cpu", 1).load(path, batch_size)()
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


class Attention(nn.Module):
    """A transformer's block on patches: the exporter writes a graph that computes with shapes."""

    def __init__(self, width: int = 16, num_heads: int = 2) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.all_three, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mixer = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        parts = self.all_three(self.norms[0](x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.mixer(self.norms[1](x))
        return self.head(x.mean(1))


class Enlarging(nn.Module):
    """Twice as many pixels, by pixel shuffle over an interpolated image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        smooth = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return (
            F.pixel_shuffle(self.body(x), 2)
            + smooth
            + F.interpolate(x, scale_factor=2, mode="nearest")
        )


@pytest.mark.parametrize("name", [*FAMILIES, "attention", "enlarging"])
def test_exported_models_compute_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = (1, 16, 16) if name not in FAMILIES or "image" in FAMILIES[name].kinds else (1, 64)
    is_enlarging = "super-resolution" in FAMILIES[name].tasks if name in FAMILIES else False
    if name not in FAMILIES:
        module = {"attention": Attention, "enlarging": Enlarging}[name]()
    elif is_enlarging:
        module = build(name, shape, 0, task="super-resolution", scale=3)
    else:
        module = build(name, shape, 10)
    targets = (np.full(1, 120.0), np.full(1, 60.0)) if is_enlarging else None
    path = tmp_path / "model.onnx"
    statistics = {"mean": np.full(1, 0.2), "std": np.full(1, 2.0), "target_statistics": targets}
    export_onnx(module.eval(), path, input_shape=shape, **statistics)
    for batch_size in (1, 3):
        agree(path, batch_size)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


IMAGE, ROWS = (3, 6, 6), (8,)
Case = tuple[str, tuple[int, ...], Sequence[np.ndarray | None], dict[str, Any]]
POSITIVE = np.abs(floats(3, 1, 1)) + 0.1

CASES: list[Case] = [
    ("Conv", IMAGE, [floats(4, 3, 3, 3), floats(4)], {"pads": [1] * 4, "strides": [2, 1]}),
    ("Conv", IMAGE, [floats(6, 1, 3, 3)], {"group": 3, "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
    ("Conv", (3, 9), [floats(4, 3, 3)], {"kernel_shape": [3]}),
    (
        "ConvTranspose",
        IMAGE,
        [floats(3, 2, 3, 3), floats(2)],
        {"strides": [2, 2], "output_padding": [1, 1]},
    ),
    ("Gemm", ROWS, [floats(5, 8), floats(5)], {"transB": 1}),
    ("Gemm", ROWS, [floats(8, 5), floats(5)], {"alpha": 0.5, "beta": 2.0}),
    ("MatMul", IMAGE, [floats(6, 2)], {}),
    (
        "MaxPool",
        IMAGE,
        [],
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    ),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    (
        "AveragePool",
        IMAGE,
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    ("GlobalAveragePool", IMAGE, [], {}),
    ("GlobalMaxPool", IMAGE, [], {}),
    (
        "BatchNormalization",
        IMAGE,
        [floats(3), floats(3), floats(3), np.abs(floats(3))],
        {"epsilon": 1e-3},
    ),
    ("LayerNormalization", IMAGE, [floats(6), floats(6)], {"epsilon": 1e-3}),
    ("LayerNormalization", IMAGE, [floats(6, 6)], {"axis": 2}),
    ("Gelu", IMAGE, [], {}),
    ("Gelu", IMAGE, [], {"approximate": "tanh"}),
    ("HardSigmoid", IMAGE, [], {"alpha": 1 / 6}),
    ("HardSigmoid", IMAGE, [], {}),
    ("LeakyRelu", IMAGE, [], {"alpha": 0.2}),
    ("Elu", IMAGE, [], {}),
    ("Clip", IMAGE, [np.float32(-0.5), np.float32(0.5)], {}),
    ("Clip", IMAGE, [None, np.float32(0.5)], {}),
    ("Clip", IMAGE, [np.float32(0.1)], {}),
    ("Softmax", IMAGE, [], {"axis": 1}),
    ("LogSoftmax", IMAGE, [], {}),
    ("ReduceMean", IMAGE, [ints(2, 3)], {"keepdims": 0}),
    ("ReduceMean", IMAGE, [ints(-1)], {}),
    ("ReduceSum", IMAGE, [ints(1)], {}),
    ("ReduceMax", IMAGE, [ints(1)], {}),
    ("ReduceMin", IMAGE, [ints(1, 2)], {"keepdims": 0}),
    ("ReduceL2", IMAGE, [ints(1)], {}),
    ("ReduceSum", IMAGE, [], {"noop_with_empty_axes": 1}),
    ("Reshape", IMAGE, [ints(0, -1)], {}),
    ("Reshape", IMAGE, [ints(-1, 9)], {}),
    ("Flatten", IMAGE, [], {}),
    ("Flatten", IMAGE, [], {"axis": 2}),
    ("Transpose", IMAGE, [], {"perm": [0, 2, 3, 1]}),
    ("Transpose", IMAGE, [], {}),
    ("Concat", IMAGE, [floats(2, 1, 6, 6)], {"axis": 1}),
    ("Slice", IMAGE, [ints(1), ints(2**63 - 1), ints(-1), ints(2)], {}),
    ("Slice", IMAGE, [ints(0, 0), ints(2, -1)], {}),
    ("Gather", IMAGE, [np.int64(-1)], {"axis": 1}),
    ("Gather", IMAGE, [ints(0, -1, 2)], {"axis": 2}),
    ("Gather", IMAGE, [ints(0, 1)], {"axis": -1}),
    ("Squeeze", (1, 5), [ints(1)], {}),
    ("Squeeze", (1, 5), [], {}),
    ("Unsqueeze", IMAGE, [ints(1, -1)], {}),
    ("Expand", (1, 5), [ints(2, 3, 1)], {}),
    ("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(7.0)], {}),
    ("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", IMAGE, [ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}),
    ("DepthToSpace", (8, 3, 3), [], {"blocksize": 2, "mode": "CRD"}),
    ("DepthToSpace", (8, 3, 3), [], {"blocksize": 2}),
    (
        "Resize",
        IMAGE,
        [None, np.float32([1, 1, 2, 2])],
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    (
        "Resize",
        IMAGE,
        [None, np.float32([1, 1, 2, 2])],
        {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    (
        "Resize",
        IMAGE,
        [None, None, ints(2, 3, 11, 11)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    ("Cast", IMAGE, [], {"to": TensorProto.FLOAT}),
    ("CastLike", IMAGE, [np.float32(1.0)], {}),
    ("PRelu", IMAGE, [POSITIVE], {}),
    ("Pow", IMAGE, [np.float32(2.0)], {}),
    *((name, IMAGE, [floats(3, 1, 1)], {}) for name in ("Add", "Sub", "Mul", "Div")),
    *(
        (name, IMAGE, [], {})
        for name in ("Abs", "Cos", "Dropout", "Erf", "Exp", "Floor", "HardSwish", "Identity")
    ),
    *(
        (name, IMAGE, [], {})
        for name in ("Mish", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh")
    ),
]


def write(
    path: Path, nodes: list[Any], shape: tuple[int, ...], constants: dict[str, np.ndarray]
) -> Path:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9),
        str(path),
    )
    return path


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)]
)
def test_an_operator_computes_the_same(case: Case, tmp_path: Path) -> None:
    operator, shape, constants, attributes = case
    names = ["" if values is None else f"c{index}" for index, values in enumerate(constants)]
    node = helper.make_node(operator, ["x", *names], ["y"], **attributes)
    given = {
        name: values for name, values in zip(names, constants, strict=True) if values is not None
    }
    agree(write(tmp_path / "one.onnx", [node], shape, given), 2)


def test_operators_that_need_others_around_them(tmp_path: Path) -> None:
    """Several outputs, sequences, numbers below zero, and operators that compute shapes."""
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "one", "two"], ["channels"]),
        node("Cast", ["channels"], ["scale"], to=TensorProto.FLOAT),
        node("Sqrt", ["scale"], ["root"]),
        node("Div", ["channels", "two"], ["half"]),
        node(
            "ConstantOfShape", ["half"], ["zeros"], value=numpy_helper.from_array(np.float32([0.5]))
        ),
        node("Split", ["x", "halves"], ["a", "b"], axis=1),
        node("Split", ["b"], ["b0", "b1"], axis=1, num_outputs=2),
        node("SplitToSequence", ["a", "scalar"], ["sequence"], axis=1),
        node("SequenceAt", ["sequence", "last"], ["a1"]),
        node("Concat", ["a1", "b1", "b0"], ["joined"], axis=1),
        node("Abs", ["joined"], ["positive"]),
        node("Add", ["positive", "root"], ["above"]),
        node("Log", ["above"], ["logarithm"]),
        node("Equal", ["x", "joined_twice"], ["equal"]),
        node("Where", ["equal", "joined_twice", "x"], ["same"]),
        node("ReduceSum", ["same", "one"], ["total"], keepdims=1),
        node("Add", ["logarithm", "total"], ["sum"]),
        node("ReduceSum", ["zeros", "zero"], ["half_of_them"], keepdims=1),
        node("Mul", ["sum", "half_of_them"], ["y"]),
    ]
    nodes.insert(14, node("Concat", ["a", "b"], ["joined_twice"], axis=1))
    constants = {
        "zero": ints(0),
        "one": ints(1),
        "two": ints(2),
        "halves": ints(2, 2),
        "scalar": np.array(1, np.int64),
        "last": np.array(-1, np.int64),
    }
    agree(write(tmp_path / "several.onnx", nodes, (4,), constants), 3)


def test_every_operator_is_tested() -> None:
    tested = {case[0] for case in CASES}
    around = {
        "ConstantOfShape",
        "Equal",
        "Log",
        "SequenceAt",
        "Shape",
        "Split",
        "SplitToSequence",
        "Sqrt",
        "Where",
    }
    assert set(torch_operators.MAKERS) == tested | around


@pytest.mark.parametrize(
    ("node", "refusal"),
    [
        (helper.make_node("Einsum", ["x"], ["y"], equation="nchw->nc"), "no operator 'Einsum'"),
        (
            helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
            "do not cover MaxPool with auto_pad=SAME_UPPER",
        ),
        (
            helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16),
            "do not cover Cast with element type 16",
        ),
    ],
)
def test_what_is_not_covered_is_refused_by_name(node: Any, refusal: str, tmp_path: Path) -> None:
    path = write(tmp_path / "other.onnx", [node], IMAGE, {})
    with pytest.raises(
        MeasurementError, match=f"torch cannot load.*{refusal}.*use an ONNX Runtime one"
    ):
        runtimes.create("torch-cpu", 1).load(path, 1)


def test_values_are_let_go_after_their_last_use(make_conv_net: Any) -> None:
    model = onnx.load(str(make_conv_net("m", (4, 8, 16))))
    x = torch.zeros(2, 1, 8, 8)
    program = TorchModel(model, x)
    alive: list[int] = []
    known: set[str] = set()

    def count(step: Any, inputs: list[Any]) -> Any:
        known.update(step.outputs)
        alive.append(len(known))
        known.difference_update(step.last_uses)
        return step.compute(*inputs)

    program.run(x, count)
    assert max(alive) == 2 and len(alive) == len(model.graph.node)
