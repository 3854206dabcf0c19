"""Attention and products with stored, transposed weights as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inn_automl.export import TOLERANCE, export_onnx, verify_onnx

SHAPE, SIZE = (6, 10), 160
MEAN, STD = np.zeros(6, np.float32), np.ones(6, np.float32)


class Heads(nn.Module):
    """Two heads over the places of a signal, with any arguments of torch's function."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 2 * SIZE) for _ in range(3))
        self.last = nn.Linear(2 * SIZE, 3)
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, 10) -> (N, 3)."""
        x = x.transpose(1, 2)
        heads = [
            layer(x).unflatten(-1, (-1, SIZE)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        y = F.scaled_dot_product_attention(*heads, **self.arguments)
        return self.last(y.transpose(1, 2).flatten(2)).mean(1)


def exported(path: Path, **arguments: Any) -> onnx.GraphProto:
    torch.manual_seed(0)
    module = Heads(**arguments).eval()
    export_onnx(module, path, input_shape=SHAPE, mean=MEAN, std=STD)
    samples = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)
    assert verify_onnx(path, module, samples, mean=MEAN, std=STD) <= TOLERANCE
    return onnx.load(path).graph


@pytest.mark.parametrize("arguments", [{}, {"scale": 0.3}], ids=str)
def test_nothing_is_computed_from_shapes(arguments: dict[str, Any], tmp_path: Path) -> None:
    graph = exported(tmp_path / "model.onnx", **arguments)
    operations = [node.op_type for node in graph.node]
    assert operations.count("Softmax") == 1
    assert set(operations) <= {
        "Sub",
        "Div",
        "MatMul",
        "Add",
        "Reshape",
        "Transpose",
        "Mul",
        "Softmax",
        "ReduceMean",
    }


def test_what_is_masked_is_left_to_the_exporter(tmp_path: Path) -> None:
    for number, arguments in enumerate(
        ({"is_causal": True}, {"attn_mask": torch.ones(10, 10, dtype=torch.bool).tril()})
    ):
        exported(tmp_path / f"{number}.onnx", **arguments)


def test_weights_of_products_keep_their_names_at_any_size(tmp_path: Path) -> None:
    graph = exported(tmp_path / "model.onnx")
    weights = {
        tensor.name: list(tensor.dims) for tensor in graph.initializer if "weight" in tensor.name
    }
    assert weights == {
        **{f"body.{name}.weight.T": [6, 2 * SIZE] for name in ("query", "key", "value")},
        "body.last.weight.T": [2 * SIZE, 3],
    }
