"""Outputs in the units of targets: inside of the file, verified by their deviations, float in int8
and fp16 files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from inn_automl.core.errors import VerificationError
from inn_automl.export import (
    TOLERANCE,
    OnnxTemplate,
    convert_fp16,
    export_onnx,
    quantize_onnx,
    verify_onnx,
)
from inn_automl.export.verification import FP16_TOLERANCE
from inn_automl.models import build
from tests.unit.export.networks import MEAN, SHAPE, STD, Small

TARGETS = np.array([1e4, 0.0, -3.0], np.float32), np.array([100.0, 1e-3, 2.0], np.float32)


def run(path: Path, samples: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": samples.astype(np.float32)})
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(Small(6), path, input_shape=SHAPE, mean=MEAN, std=STD, target_statistics=TARGETS)
    return path


def test_outputs_are_in_the_units_of_the_targets(path: Path, samples: np.ndarray) -> None:
    standardized = (samples - MEAN[:, None, None]) / STD[:, None, None]
    with torch.inference_mode():
        expected = Small(6)(torch.from_numpy(standardized.astype(np.float32))).numpy()
    np.testing.assert_allclose(
        run(path, samples), expected * TARGETS[1] + TARGETS[0], rtol=1e-5, atol=1e-5
    )
    assert (
        0
        <= verify_onnx(path, Small(6), samples, mean=MEAN, std=STD, target_statistics=TARGETS)
        < TOLERANCE / 10
    )


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_target_that_is_small_beside_others_is_compared_too(
    path: Path, samples: np.ndarray, column: int
) -> None:
    module = Small(6)
    with torch.no_grad():
        module.head.weight[column].mul_(1.01)
    with pytest.raises(VerificationError, match="differs from torch"):
        verify_onnx(path, module, samples, mean=MEAN, std=STD, target_statistics=TARGETS)


def test_bringing_outputs_to_their_units_stays_float(
    path: Path, samples: np.ndarray, tmp_path: Path
) -> None:
    training = np.random.default_rng(1).integers(0, 256, (64, *SHAPE)).astype(np.uint8)
    quantize_onnx(path, tmp_path / "int8.onnx", training)
    expected, found = run(path, samples), run(tmp_path / "int8.onnx", samples)
    spread = np.abs(expected - TARGETS[0]).max(axis=0)
    assert (np.abs(found - expected).max(axis=0) < 0.05 * spread).all()
    assert np.abs(found - expected).max() > 0
    graph = onnx.load(tmp_path / "int8.onnx").graph
    producers = {name: node for node in graph.node for name in node.output}
    add = producers["output"]
    multiply = producers[next(name for name in add.input if name in producers)]
    network = producers[next(name for name in multiply.input if name in producers)]
    assert [add.op_type, multiply.op_type, network.op_type] == ["Add", "Mul", "Gemm"]


def test_bringing_outputs_to_their_units_stays_float_in_halves(
    path: Path, samples: np.ndarray, tmp_path: Path
) -> None:
    """A mean of 1e4 has no digits left for a deviation of 100 in float16."""
    half = tmp_path / "fp16.onnx"
    convert_fp16(path, half)
    statistics = {"mean": MEAN, "std": STD, "target_statistics": TARGETS}
    difference = verify_onnx(half, Small(6), samples, **statistics, tolerance=FP16_TOLERANCE)
    assert TOLERANCE < difference < FP16_TOLERANCE / 10
    graph = onnx.load(half).graph
    assert [node.op_type for node in graph.node][-3:] == ["Cast", "Mul", "Add"]
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Smooth images, as photographs are: (N, 3, 12, 12) bytes."""
    rng, grid = np.random.default_rng(0), np.linspace(0, 3, 12)
    phases = rng.uniform(0, 6, (48, 3, 1, 1))
    waves = np.sin(grid[:, None] + phases) * np.cos(2 * grid + phases)
    return np.round(127.5 + 120 * waves).astype(np.uint8)


def test_image_to_image_networks_keep_their_pixels_in_int8(
    pictures: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    mean, std = np.full(3, 127.5, np.float32), np.full(3, 60.0, np.float32)
    modules = [
        build("edsr", (3, 12, 12), 0, width=width, depth=1, task="super-resolution", scale=2).eval()
        for width in (0.5, 0.25)
    ]
    template = OnnxTemplate.from_modules(
        *modules,
        input_shape=(3, 12, 12),
        mean=mean,
        std=std,
        target_statistics=(mean, std),
        samples=pictures[:4],
    )
    assert template.why_not is None
    assert template.export(modules[1], tmp_path / "fp32.onnx").difference < TOLERANCE
    quantize_onnx(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", pictures[8:])
    expected, found = (run(tmp_path / name, pictures[:8]) for name in ("fp32.onnx", "int8.onnx"))
    assert expected.shape == (8, 3, 24, 24)
    assert np.sqrt(np.mean(np.square(found - expected))) < 1.0  # of 255 steps
    convert_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    statistics = {"mean": mean, "std": std, "target_statistics": (mean, std)}
    assert (
        verify_onnx(
            tmp_path / "fp16.onnx", modules[1], pictures[:4], **statistics, tolerance=FP16_TOLERANCE
        )
        < 5e-3
    )
    types = {
        tensor.name: tensor.data_type
        for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    assert onnx.TensorProto.INT8 in types.values()
