"""The ONNX file of one module."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from inn_automl.core.errors import ExportError, StorageError
from inn_automl.export import OnnxTemplate, export_onnx
from tests.unit.export.networks import MEAN, SHAPE, STD, Small

WIDTHS = {"conv": 5, "head": 3}


@pytest.fixture(scope="module")
def module() -> Small:
    """In training mode, as a careless caller leaves it."""
    return Small(5).train()


@pytest.fixture(scope="module")
def path(module: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(module, path, input_shape=SHAPE, mean=MEAN, std=STD, widths=WIDTHS)
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> onnx.ModelProto:
    return onnx.load(path)


def test_one_input_and_one_output_with_a_dynamic_batch(path: Path, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(path)
    ports = [
        (port.name, port.type, port.shape)
        for port in (*session.get_inputs(), *session.get_outputs())
    ]
    assert ports == [
        ("input", "tensor(float)", ["batch", *SHAPE]),
        ("logits", "tensor(float)", ["batch", 3]),
    ]


def test_takes_raw_values(path: Path, module: Small, samples: np.ndarray) -> None:
    standardized = (samples - MEAN[:, None, None]) / STD[:, None, None]
    expected = (
        copy.deepcopy(module)
        .eval()(torch.from_numpy(standardized.astype(np.float32)))
        .detach()
        .numpy()
    )
    session = onnxruntime.InferenceSession(path)
    for size in (1, 2, 4):
        (logits,) = session.run(["logits"], {"input": samples[:size].astype(np.float32)})
        np.testing.assert_allclose(logits, expected[:size], rtol=1e-5, atol=1e-5)


def test_batch_norm_is_folded(model: onnx.ModelProto) -> None:
    assert [node.op_type for node in model.graph.node] == [
        "Sub",
        "Div",
        "Conv",
        "Relu",
        "ReduceMax",
        "Mul",
        "Gemm",
    ]


def test_names_its_producer_and_widths(model: onnx.ModelProto) -> None:
    assert model.producer_name == "inn_automl"
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {
        "inn_automl.widths": WIDTHS
    }


def test_says_nothing_of_the_machine_it_was_made_on(path: Path) -> None:
    assert not re.search(rb"\.py\b|site-packages|Traceback|namespace", path.read_bytes())


@pytest.mark.usefixtures("path")
def test_leaves_the_module_as_it_was(module: Small) -> None:
    assert module.training
    assert module.norm.training
    before = Small(5).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_template_gives_the_same_bytes(
    small_template: OnnxTemplate, path: Path, tmp_path: Path
) -> None:
    """So that what is measured on one holds for the other."""
    export = small_template.export(Small(5), tmp_path / "model.onnx", widths=WIDTHS)
    assert export.from_template
    assert export.path.read_bytes() == path.read_bytes()


def test_a_module_for_one_batch_size_is_refused(tmp_path: Path) -> None:
    class Fixed(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).view(2, 3)

    with pytest.raises(ExportError, match="Fixed does not map a batch of any size"):
        export_onnx(Fixed(4), tmp_path / "model.onnx", input_shape=SHAPE, mean=MEAN, std=STD)
    assert not list(tmp_path.iterdir())


def test_statistics_of_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="mean has 3 values for 2 channels"):
        export_onnx(
            nn.Flatten(), tmp_path / "model.onnx", input_shape=SHAPE, mean=np.zeros(3), std=STD
        )


def test_a_module_that_torch_cannot_trace_is_refused(tmp_path: Path) -> None:
    class Branching(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(ExportError, match="torch cannot translate Branching to ONNX"):
        export_onnx(Branching(4), tmp_path / "model.onnx", input_shape=SHAPE, mean=MEAN, std=STD)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_a_storage_error(
    tmp_path: Path, small_template: OnnxTemplate
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        small_template.export(Small(4), tmp_path / "file" / "model.onnx")
