"""ONNX against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inn_automl.core.errors import StorageError, VerificationError
from inn_automl.export import TOLERANCE, OnnxTemplate, verify_onnx
from tests.unit.export.networks import MEAN, STD, Small


@pytest.fixture(scope="module")
def path(small_template: OnnxTemplate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_template.export(Small(6), tmp_path_factory.mktemp("onnx") / "model.onnx").path


def test_equal_up_to_rounding(path: Path, samples: np.ndarray) -> None:
    assert 0 <= verify_onnx(path, Small(6), samples, mean=MEAN, std=STD) < TOLERANCE / 10


def test_one_sample_is_enough(path: Path, samples: np.ndarray) -> None:
    assert verify_onnx(path, Small(6), samples[:1], mean=MEAN, std=STD) < TOLERANCE


@pytest.mark.parametrize(
    "name", [name for name, _ in Small(6).named_parameters()] + ["norm.running_var"]
)
def test_one_tensor_off_by_a_percent_is_caught(path: Path, samples: np.ndarray, name: str) -> None:
    module = Small(6)
    with torch.no_grad():
        module.state_dict()[name].mul_(1.01)
    with pytest.raises(VerificationError, match="differs from torch"):
        verify_onnx(path, module, samples, mean=MEAN, std=STD)


def test_another_standardization_is_caught(path: Path, samples: np.ndarray) -> None:
    with pytest.raises(VerificationError, match=f"more than {TOLERANCE:.3g}"):
        verify_onnx(path, Small(6), samples, mean=MEAN + 1, std=STD)


def test_logits_that_are_not_finite_are_no_agreement(path: Path, samples: np.ndarray) -> None:
    module = Small(6)
    with torch.no_grad():
        module.norm.running_var.fill_(float("nan"))
    with pytest.raises(VerificationError, match="not finite"):
        verify_onnx(path, module, samples, mean=MEAN, std=STD)


def test_another_number_of_classes_is_caught(path: Path, samples: np.ndarray) -> None:
    module = Small(6)
    module.head = torch.nn.Linear(6, 2).eval()
    with pytest.raises(VerificationError, match=r"shape \(1, 3\) where torch gives \(1, 2\)"):
        verify_onnx(path, module, samples, mean=MEAN, std=STD)


def test_a_damaged_file_is_caught(path: Path, samples: np.ndarray, tmp_path: Path) -> None:
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VerificationError, match="cannot be run"):
        verify_onnx(damaged, Small(6), samples, mean=MEAN, std=STD)


def test_no_file_and_no_samples(path: Path, samples: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        verify_onnx(tmp_path / "none.onnx", Small(6), samples, mean=MEAN, std=STD)
    with pytest.raises(VerificationError, match="no sample"):
        verify_onnx(path, Small(6), samples[:0], mean=MEAN, std=STD)
