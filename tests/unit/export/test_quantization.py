"""int8 files: what they compute, and that they are one file for one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from inn_automl.core.errors import ExportError, StorageError
from inn_automl.core.precision import METADATA_KEY
from inn_automl.export import OnnxTemplate, export_onnx
from inn_automl.export.quantization import outputs, quantize_onnx
from inn_automl.export.raw_model import RawInput
from tests.unit.export.networks import MEAN, SHAPE, STD, Mixed, Small, randomize


class Residual(nn.Module):
    """What the families are made of: convolutions, a residual sum, pooling, the mean over space, a
    head.
    """

    def __init__(self, a: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, a, 3, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(a, a, 3, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU()
        )
        self.head = nn.Linear(a, 3)
        randomize(self, 3)
        with torch.no_grad():
            self.body[0].weight.sub_(0.03)  # all positive weights would only ever grow the sums

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.body(x))
        return self.head(torch.max_pool2d(x, 2).mean((2, 3), keepdim=True).flatten(1))


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (64, *SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "fp32.onnx"
    export_onnx(Residual(), path, input_shape=SHAPE, mean=MEAN, std=STD, widths={"stem": 24})
    return path


def logits(path: Path, samples: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"input": samples.astype(np.float32)})
    return found


def test_logits_are_near_those_of_the_float_file_in_any_batch(
    float_file: Path, training: np.ndarray, samples: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    assert quantize_onnx(float_file, path, training) == path.stat().st_size
    expected, found = logits(float_file, samples), logits(path, samples)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert np.abs(found - expected).max() > 0  # it is another file
    assert np.concatenate([logits(path, one[None]) for one in samples]) == pytest.approx(
        found, rel=1e-5
    )


def test_weights_are_bytes_and_the_ports_are_float(
    float_file: Path, training: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    quantize_onnx(float_file, path, training)
    model = onnx.load(path)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [
        tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) in (2, 4) and np.prod(tensor.dims) > 60
    ]
    assert len(weights) == 3
    assert {types[tensor.name] for tensor in weights} == {onnx.TensorProto.INT8}
    # of 7 bits
    assert (
        max(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() for tensor in weights)
        <= 64
    )
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (
        taken.type.tensor_type.elem_type
        == given.type.tensor_type.elem_type
        == onnx.TensorProto.FLOAT
    )
    assert taken.type.tensor_type.shape.dim[0].dim_param
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata == {"inn_automl.widths": '{"stem": 24}', METADATA_KEY: "int8"}
    operations = [node.op_type for node in model.graph.node]
    assert "ReduceMean" not in operations and "GlobalAveragePool" in operations
    assert next(node for node in model.graph.node if node.output[0] == "logits").op_type == "Gemm"


def test_the_same_samples_give_the_same_bytes_and_others_do_not(
    float_file: Path, training: np.ndarray, tmp_path: Path
) -> None:
    for name, seen in (("a", training), ("b", training), ("c", training // 2)):
        quantize_onnx(float_file, tmp_path / name, seen)
    assert (
        (tmp_path / "a").read_bytes()
        == (tmp_path / "b").read_bytes()
        != (tmp_path / "c").read_bytes()
    )


def test_what_has_no_int8_kernel_stays_float(
    mixed_template: OnnxTemplate, training: np.ndarray, samples: np.ndarray, tmp_path: Path
) -> None:
    module = Mixed(11, 7, 9, seed=5)
    mixed_template.export(module, tmp_path / "fp32.onnx")
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", training)
    expected, found = (
        logits(tmp_path / "fp32.onnx", samples),
        logits(tmp_path / "int8.onnx", samples),
    )
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.3 * np.abs(expected).max()


def test_outputs_are_those_of_torch(float_file: Path, samples: np.ndarray) -> None:
    with torch.inference_mode():
        expected = RawInput(Residual(), SHAPE, MEAN, STD)(
            torch.from_numpy(samples.astype(np.float32))
        ).numpy()
    many = np.concatenate([samples] * 200)  # more than one batch
    found = list(outputs(float_file, many, threads=2))
    assert len(found) > 1
    np.testing.assert_allclose(
        np.concatenate(found), np.concatenate([expected] * 200), rtol=1e-4, atol=1e-5
    )


def test_refusals_say_what_to_do(
    small_template: OnnxTemplate, samples: np.ndarray, tmp_path: Path
) -> None:
    small_template.export(Small(4), tmp_path / "fp32.onnx")
    with pytest.raises(ExportError, match="give at least one"):
        quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", samples[:0])
    with pytest.raises(StorageError, match="export the module first"):
        quantize_onnx(tmp_path / "missing.onnx", tmp_path / "int8.onnx", samples)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="cannot be quantized"):
        quantize_onnx(tmp_path / "broken.onnx", tmp_path / "int8.onnx", samples)
    with pytest.raises(ExportError, match="cannot be run"):
        next(outputs(tmp_path / "broken.onnx", samples))
    assert not (tmp_path / "int8.onnx").exists()
