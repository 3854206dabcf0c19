"""The file that a user downloads."""

from __future__ import annotations

import importlib.metadata
import json
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.export import BundleConfig, OnnxTemplate, extract_bundle, read_bundle, write_bundle
from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from tests.unit.export.networks import MEAN, SHAPE, STD, Small, randomize

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "reference" / "bundle.md"
CODE = re.findall(
    r"```python\n(.*?)```",
    (ROOT / "docs" / "how-to" / "use-a-bundle.md").read_text(encoding="utf-8"),
    re.DOTALL,
)
MEMBERS = ["README.md", "config.json", "model.onnx", "predict.py", "weights.safetensors"]


def make_config(**changes: Any) -> BundleConfig:
    latency = {
        "p50": 1.0,
        "p95": 1.2,
        "p99": 1.5,
        "ci": (1.1, 1.3),
        "percentile": 95.0,
        "at_percentile": 1.2,
    }
    content = {
        "id": "a1b2",
        "family": "convnet",
        "build": {"input_shape": SHAPE, "num_classes": 3, "width": 1.0, "depth": None},
        "widths": {"conv": 6},
        "classes": ("naïve", "zwei", "три"),
        "input": {"name": "input", "shape": SHAPE},
        "output": {"name": "logits", "shape": (3,)},
        "preprocessing": {"mean": tuple(MEAN.tolist()), "std": tuple(STD.tolist())},
        "dataset": {"name": "noise", "fingerprint": "0" * 64},
        "metric": {
            "name": "accuracy",
            "unit": "",
            "validation": 0.9,
            "test": 0.88,
            "test_ci": (0.85, 0.91),
            "num_test_samples": 500,
        },
        "params": 123,
        "macs": 4567,
        "latency": {
            "laptop": {
                "runtime": "onnxruntime-cpu",
                "threads": 1,
                "batch_size": 1,
                "latency_ms": {**latency, "num_samples": 1000},
                "environment": {"cpu": "some", "onnxruntime": "1.0"},
            }
        },
        "verification": {"max_difference": 1e-7, "tolerance": 1e-4, "num_samples": 4},
        "created_at": datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
    }
    return BundleConfig.model_validate(content | changes)


@pytest.fixture(scope="module")
def onnx(small_template: OnnxTemplate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_template.export(Small(6), tmp_path_factory.mktemp("onnx") / "any.onnx").path


@pytest.fixture(scope="module")
def bundle(onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    write_bundle(path, make_config(), onnx=onnx, weights=Small(6).state_dict())
    return path


def repack(
    bundle: Path,
    path: Path,
    changes: dict[str, bytes | None],
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(bundle) as old:
        contents = {name: old.read(name) for name in old.namelist()} | changes
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in contents.items():
            if data is not None:
                new.writestr(name, data)
    return path


def test_holds_the_model_its_weights_and_what_is_known_of_them(bundle: Path, onnx: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert sorted(archive.namelist()) == MEMBERS
        assert archive.read("model.onnx") == onnx.read_bytes()
        weights = safetensors.torch.load(archive.read("weights.safetensors"))
        config = json.loads(archive.read("config.json"))
    expected = Small(6).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    assert config["preprocessing"] == {
        "included": True,
        "input": "raw float32 values of the dataset",
        "mean": [100.0, 60.0],
        "std": [50.0, 80.0],
        "image": None,
        "audio": None,
    }
    assert config["classes"] == ["naïve", "zwei", "три"]
    assert config["created_at"] == "2026-11-23T12:00:00Z"
    assert config["files"]["model.onnx"]["size_bytes"] == onnx.stat().st_size
    assert config["versions"]["torch"] == importlib.metadata.version("torch")


def test_the_same_content_gives_the_same_bytes(bundle: Path, onnx: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "again.zip", make_config(), onnx=onnx, weights=Small(6).state_dict())
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_is_dated_now_by_default(onnx: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    write_bundle(
        tmp_path / "b.zip", make_config(created_at=None), onnx=onnx, weights=Small(6).state_dict()
    )
    created_at = read_bundle(tmp_path / "b.zip").created_at
    assert created_at is not None
    assert before <= created_at <= datetime.now(UTC)


def test_reads_back_what_was_written(bundle: Path, onnx: Path, tmp_path: Path) -> None:
    written = write_bundle(
        tmp_path / "b.zip", make_config(), onnx=onnx, weights=Small(6).state_dict()
    )
    assert read_bundle(bundle) == written
    assert written.model_copy(update={"files": {}, "versions": {}}) == make_config()
    assert extract_bundle(bundle, tmp_path / "unpacked") == written
    assert sorted(path.name for path in (tmp_path / "unpacked").iterdir()) == MEMBERS
    assert (tmp_path / "unpacked" / "model.onnx").read_bytes() == onnx.read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.onnx": b"another"}, "model.onnx has the hash"),
        ({"weights.safetensors": b""}, "weights.safetensors has the hash"),
        ({"weights.safetensors": None}, "do not agree on weights.safetensors"),
        ({"../evil.txt": b"out of the folder"}, r"\.\./evil\.txt"),
        ({"/etc/evil": b"out of the folder"}, "/etc/evil"),
        ({"config.json": b"{}"}, "config.json, id: Field required"),
        ({"config.json": b"["}, "config.json, as a whole: Invalid JSON"),
    ],
)
def test_a_changed_bundle_is_refused(
    bundle: Path, tmp_path: Path, changes: dict[str, bytes | None], reason: str
) -> None:
    changed = repack(
        bundle,
        tmp_path / "in" / "changed.zip" if (tmp_path / "in").mkdir() is None else bundle,
        changes,
    )
    with pytest.raises(CorruptFileError, match=reason):
        extract_bundle(changed, tmp_path / "in" / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "changed.zip"]


def test_another_format_and_missing_hashes_are_refused(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        config = json.loads(archive.read("config.json"))
    for key, value, reason in (
        ("format_version", 3, "is a bundle of format 3"),
        ("files", {}, "no hash of README.md, model.onnx"),
    ):
        changed = json.dumps(config | {key: value}).encode()
        with pytest.raises(CorruptFileError, match=reason):
            read_bundle(repack(bundle, tmp_path / f"{key}.zip", {"config.json": changed}))


def test_compressed_members_are_refused(bundle: Path, tmp_path: Path) -> None:
    """They could expand to any size."""
    with pytest.raises(CorruptFileError, match="uncompressed"):
        read_bundle(repack(bundle, tmp_path / "small.zip", {}, zipfile.ZIP_DEFLATED))


def test_no_bundle_at_all(bundle: Path, onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="not a whole bundle"):
        read_bundle(onnx)
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match="not a whole bundle"):
        read_bundle(tmp_path / "cut.zip")
    with pytest.raises(StorageError, match="cannot be read"):
        read_bundle(tmp_path / "none.zip")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_changes_nothing_unnoticed(
    bundle: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(bundle.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    changed = tmp_path / "changed.zip"
    changed.write_bytes(content)
    try:
        config = read_bundle(changed)
    except CorruptFileError:
        return
    assert config == read_bundle(bundle)  # it was one of the ZIP's own bytes, a date for instance


@contextmanager
def only_4096_bytes_a_file() -> Iterator[None]:
    """A real limit of the system, which stops a file in its middle as a full disk does.

    It holds for the whole process: pytest's own output, where it goes into a file, must not be
    written under it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_old_bundle_stays(onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"the old one")
    weights = {"large": torch.zeros(10_000)}
    with (
        pytest.raises(StorageError, match=rf"no room for '{path}': 4\d{{4}} bytes are needed"),
        only_4096_bytes_a_file(),
    ):
        write_bundle(path, make_config(), onnx=onnx, weights=weights)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_model_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="export the model first"):
        write_bundle(tmp_path / "b.zip", make_config(), onnx=tmp_path / "none.onnx", weights={})


def test_the_documented_code_reads_it_with_onnxruntime_alone(bundle: Path) -> None:
    """The very code of the guide, in a fresh interpreter that cannot import torch or this
    library.
    """
    missing = ["torch", "onnx", "inn_automl", "safetensors"]
    guard = f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", guard + CODE[1]],
        cwd=bundle.parent,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"PATH": "", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.stderr == ""
    zeros = (np.zeros((1, *SHAPE)) - MEAN[:, None, None]) / STD[:, None, None]
    index = int(Small(6)(torch.from_numpy(zeros.astype(np.float32))).argmax())
    assert done.stdout == f"{[make_config().classes[index]]}\n"


def test_reading_a_bundle_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'safetensors']))\n"
        f"from inn_automl.export import read_bundle; print(read_bundle({str(bundle)!r}).family)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("convnet\n", "")


def test_the_documented_code_makes_a_torch_module_of_it(
    onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = build("convnet", SHAPE, 3)
    randomize(full, 0)
    network = IntegralNetwork(full, torch.zeros(2, *SHAPE))
    widths = network.uniform_widths(0.5)
    module = network.discretize(widths).eval()
    write_bundle(
        tmp_path / "bundle.zip", make_config(widths=widths), onnx=onnx, weights=module.state_dict()
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(CODE[2], names)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(names["module"](x), module(x))


def test_a_metric_is_stored_once() -> None:
    config = make_config()
    with pytest.raises(ValidationError, match="accuracy"):
        BundleConfig.model_validate({**config.model_dump(), "accuracy": {"validation": 0.9}})
    assert (config.metric.name, config.metric.unit) == ("accuracy", "")


def test_every_key_is_documented(bundle: Path) -> None:
    def keys(value: Any) -> Iterator[str]:
        for key, inner in value.items():
            yield key
            if isinstance(inner, dict) and key not in (
                "widths",
                "versions",
                "environment",
                "files",
                "latency",
            ):
                yield from keys(inner)

    config = read_bundle(bundle).model_dump()
    documented = set(re.findall(r"`([a-z0-9_]+)`", DOCUMENT.read_text(encoding="utf-8")))
    expected = {*keys(config), *keys(config["latency"]["laptop"]), *config["files"]["model.onnx"]}
    assert expected - documented == set()
