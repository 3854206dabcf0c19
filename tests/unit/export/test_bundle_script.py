"""predict.py of a bundle, run where neither this library nor torch can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from inn_automl import Predictor
from inn_automl.export import bundle_script
from inn_automl.export.bundle import extract_bundle
from inn_automl.export.records import Preprocessing
from tests.unit.export.file_models import AUDIO, image_input, preprocessing, write_file_bundle

FORBIDDEN = ["inn_automl", "torch", "onnx", "safetensors", "pydantic"]


def run(folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({FORBIDDEN}))\n"
        f"sys.argv = ['predict.py', {str(path)!r}]\n"
        f"runpy.run_path({str(folder / 'predict.py')!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )


def file_of(kind: str, folder: Path) -> Path:
    rng = np.random.default_rng(0)
    if kind == "recording.ogg":
        times = np.arange(11025) / 11025
        soundfile.write(folder / kind, 0.3 * np.sin(2 * np.pi * 440 * times), 11025)
    elif kind == "array.npy":
        np.save(folder / kind, rng.integers(0, 256, (3, 40, 56)))
    else:
        rows, columns = np.mgrid[0:90, 0:120]
        pixels = np.stack([2 * rows, 2 * columns, rows + columns], axis=2).astype(np.uint8)
        image = Image.fromarray(pixels)
        exif = Image.Exif()
        exif[0x0112] = 8
        image.convert("L" if kind == "grey.png" else "RGB").save(folder / kind, exif=exif)
    return folder / kind


@pytest.mark.parametrize(
    ("described", "kind"),
    [
        (preprocessing(image_input()), "photo.jpg"),
        (preprocessing(image_input(resize="pad")), "grey.png"),
        (preprocessing(image_input()), "array.npy"),
        (preprocessing(audio=AUDIO), "recording.ogg"),
    ],
)
def test_it_says_what_the_command_says(tmp_path: Path, described: Preprocessing, kind: str) -> None:
    bundle = write_file_bundle(tmp_path, described)
    extract_bundle(bundle, tmp_path / "unpacked")
    path = file_of(kind, tmp_path)
    done = run(tmp_path / "unpacked", path)
    assert (done.returncode, done.stderr) == (0, "")
    label, probability = done.stdout.split()
    (found,) = Predictor(bundle).predict([path])
    assert found.output is not None
    assert label == found.label
    assert float(probability) == pytest.approx(found.output.max(), abs=2e-3)


def test_regression_prints_targets(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing(image_input()), task="regression")
    extract_bundle(bundle, tmp_path / "unpacked")
    path = file_of("photo.png", tmp_path)
    done = run(tmp_path / "unpacked", path)
    (found,) = Predictor(bundle).predict([path])
    assert found.output is not None
    assert np.allclose(np.array(eval(done.stdout)), found.output, rtol=1e-3, atol=1e-3)


def test_a_model_of_arrays_says_what_it_takes(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing())
    extract_bundle(bundle, tmp_path / "unpacked")
    done = run(tmp_path / "unpacked", tmp_path / "photo.png")
    assert done.returncode == 1
    assert "trained on arrays: give one sample as a .npy file" in done.stderr


def test_it_can_be_read_at_a_glance() -> None:
    lines = Path(bundle_script.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    assert not any("inn_automl" in line for line in lines)
