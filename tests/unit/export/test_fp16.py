"""float16 files, and that their float32 counterparts round as float16 kernels do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

from inn_automl.core.errors import ExportError, StorageError, VerificationError
from inn_automl.export import convert_fp16, export_onnx, verify_onnx
from inn_automl.export.deduplication import WeightDeduplicator
from inn_automl.export.fp16 import float32_counterpart
from inn_automl.export.quantization import outputs
from inn_automl.export.verification import FP16_TOLERANCE, TOLERANCE
from inn_automl.models import FAMILIES, build
from inn_automl.runtimes.torch_model import TorchModel

SHAPES = {"image": (2, 12, 12), "signal": (2, 48)}


def write(
    folder: Path, name: str, module: nn.Module, *, raw: float = 200.0
) -> tuple[Path, Path, np.ndarray]:
    """A module's float32 and float16 files, and raw samples."""
    shape = SHAPES["signal" if name in ("signal", "spectrogram", "timeseries") else "image"]
    samples = raw * np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    statistics = {"mean": np.full(2, raw / 2, np.float32), "std": np.full(2, raw / 4, np.float32)}
    source, target = folder / "fp32.onnx", folder / "fp16.onnx"
    export_onnx(module, source, input_shape=shape, widths={"a": 1}, **statistics)
    assert convert_fp16(source, target) == target.stat().st_size
    return source, target, samples


def run(model: bytes, samples: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": samples})
    return logits


class Attention(nn.Module):
    """Sizes are computed in the graph, and layer normalization and softmax are operations of their
    own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(2, 8, 4, 4), nn.LayerNorm(8)
        self.all_three, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(2, (2, 4)).transpose(1, 2)
            for part in self.all_three(self.norm(x)).chunk(3, dim=-1)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(nn.functional.gelu(x + attended).mean(1))


class Overflowing(nn.Module):
    """Activations of about 1e6, which cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x * 1e6 / 1e6).mean((2, 3)))


CLASSIFIERS = [name for name, family in FAMILIES.items() if "classification" in family.tasks]


@pytest.mark.parametrize("name", [*CLASSIFIERS, "attention"])
def test_what_is_run_is_what_half_precision_computes(name: str, tmp_path: Path) -> None:
    """Against torch, whose CPU kernels do compute the float16 file in float16."""
    torch.manual_seed(0)
    shape = SHAPES["signal" if name in ("signal", "spectrogram", "timeseries") else "image"]
    module = (Attention() if name == "attention" else build(name, shape, 3)).eval()
    source, target, samples = write(tmp_path, name, module)
    expected, found = (
        run(source.read_bytes(), samples),
        run(float32_counterpart(target.read_bytes()), samples),
    )
    off = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < off < 2e-3  # unlike the float32 file, and not far from it
    x = torch.from_numpy(samples)
    with torch.inference_mode():
        half = TorchModel(onnx.load(target), x)(x).numpy()
    assert np.abs(half - found).max() < 2e-3 * np.abs(expected).max()
    assert float32_counterpart(source.read_bytes()) == source.read_bytes()


def test_weights_are_half_and_the_ports_and_the_standardization_are_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Raw values that float16 does not hold: standardized, they are like any others.
    module = build("convnet", SHAPES["image"], 3).eval()
    source, target, samples = write(tmp_path, "convnet", module, raw=1e6)
    model = onnx.load(target)
    # also that each value is made before it is used
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {kinds[name] for name in kinds if name.endswith("weight")} == {TensorProto.FLOAT16}
    assert {kinds[name] for name in kinds if name.startswith("standardize.")} == {TensorProto.FLOAT}
    ports = [port.type.tensor_type for port in (*model.graph.input, *model.graph.output)]
    assert [port.elem_type for port in ports] == [TensorProto.FLOAT] * 2
    assert all(port.shape.dim[0].dim_param for port in ports)
    assert [node.op_type for node in model.graph.node][:3] == ["Sub", "Div", "Cast"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "inn_automl.widths": '{"a": 1}',
        "inn_automl.precision": "fp16",
    }
    assert target.stat().st_size < 0.6 * source.stat().st_size
    assert np.isfinite(run(float32_counterpart(target.read_bytes()), samples)).all()
    again = tmp_path / "again.onnx"
    convert_fp16(source, again)
    assert again.read_bytes() == target.read_bytes()


def test_what_overflows_on_a_gpu_is_not_taken_for_right(tmp_path: Path) -> None:
    module = Overflowing().eval()
    source, target, samples = write(tmp_path, "overflowing", module)
    assert np.isfinite(
        run(target.read_bytes(), samples)
    ).all()  # ONNX Runtime's CPU provider does not round
    assert not np.isfinite(run(float32_counterpart(target.read_bytes()), samples)).all()
    statistics = {"mean": np.full(2, 100.0, np.float32), "std": np.full(2, 50.0, np.float32)}
    assert verify_onnx(source, module, samples, **statistics) < TOLERANCE
    with pytest.raises(VerificationError, match=r"differs from torch by (nan|inf)"):
        verify_onnx(target, module, samples, **statistics, tolerance=FP16_TOLERANCE)
    assert not np.isfinite(np.concatenate(list(outputs(target, samples)))).all()


def test_verification_allows_rounding_and_nothing_more(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build("resnet", SHAPES["image"], 3).eval()
    _, target, samples = write(tmp_path, "resnet", module)
    statistics = {"mean": np.full(2, 100.0, np.float32), "std": np.full(2, 50.0, np.float32)}
    assert (
        TOLERANCE
        < verify_onnx(target, module, samples, **statistics, tolerance=FP16_TOLERANCE)
        < 5e-3
    )
    with torch.no_grad():
        next(p for p in module.parameters() if p.ndim == 4).mul_(1.5)
    with pytest.raises(VerificationError, match=r"more than 0\.05"):
        verify_onnx(target, module, samples, **statistics, tolerance=FP16_TOLERANCE)


def test_its_weights_are_tensors_of_their_own_in_an_elastic_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build("convnet", SHAPES["image"], 3).eval()
    source, target, _ = write(tmp_path, "convnet", module)
    nodes = {f"body.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    shared = WeightDeduplicator(nodes)
    _, whole = shared.add("whole", source.read_bytes())
    _, half = shared.add("half", target.read_bytes())
    assert all(part.tensor.startswith("half/") for part in half.values())
    assert set(half) & set(whole)


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="export the module first"):
        convert_fp16(tmp_path / "none.onnx", tmp_path / "half.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"cannot be made float16.*leave fp16 out"):
        convert_fp16(tmp_path / "broken.onnx", tmp_path / "half.onnx")
    with pytest.raises(ExportError, match="cannot be read"):
        float32_counterpart(b"no model")
    assert not (tmp_path / "half.onnx").exists()
