"""README.md of a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from inn_automl.export.bundle import extract_bundle
from inn_automl.export.model_card import model_card
from tests.unit.export.conftest import make_config
from tests.unit.export.file_models import (
    AUDIO,
    bundle_config,
    image_input,
    preprocessing,
    write_file_bundle,
)

SIZES = {"model.onnx": 12345, "model_any_size.onnx": 4000}


def test_it_says_what_the_evidence_is() -> None:
    card = model_card(make_config("a1b2", {"conv": 6}, 0.9, {"laptop": 2.0}), {"model.onnx": 12345})
    assert "| test | 88.00 % (85.00 % to 91.00 %) | 95 % interval, 500 samples" in card
    assert "| laptop | onnxruntime-cpu, 1 thread(s), batch 1 | 1.6 | 2 | 4 |" in card
    assert "123 parameters, 4,567 multiply-accumulates a sample, fp32" in card
    assert "`model.onnx` has 12,345 bytes" in card
    assert "| conv | 6 |" in card
    assert "`one`, `two`, `three`" in card
    assert "arrays of 2 x 8 x 8" in card
    assert "model_any_size" not in card
    assert "random weights" in card


@pytest.mark.parametrize(
    ("resize", "said"),
    [
        ("crop", "cut to the centre of 46 x 64 (bilinear, antialiased), of which the centre of 40"),
        ("pad", "padded to 40 x 56"),
        ("stretch", "stretched to 40 x 56"),
    ],
)
def test_it_says_how_images_are_read(resize: str, said: str) -> None:
    card = model_card(bundle_config(preprocessing(image_input(resize=resize))), SIZES)
    assert "RGB images (0 to 255)" in card
    assert said in card
    assert "`model_any_size.onnx`: one image of any size" in card


def test_it_says_how_recordings_are_read() -> None:
    card = model_card(bundle_config(preprocessing(audio=AUDIO)), SIZES)
    assert "8000 Hz, mono (mixed down)" in card
    assert "windows of 0.05 s that start every 0.025 s" in card
    assert "recording.wav" in card


def test_weights_have_a_licence_of_their_own() -> None:
    origin = {
        "source": "timm/tf_efficientnet_lite0.in1k",
        "licence": "apache-2.0",
        "sha256": "0" * 64,
        "notes": ("The head of 1,000 classes was replaced.",),
    }
    card = model_card(bundle_config(preprocessing(image_input()), weights=origin), SIZES)
    assert "Training started from: timm/tf_efficientnet_lite0.in1k" in card
    assert "Licence of these weights: apache-2.0" in card
    assert "- The head of 1,000 classes was replaced." in card


def test_a_regression_has_units(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing(), task="regression")
    extract_bundle(bundle, tmp_path / "unpacked")
    card = (tmp_path / "unpacked" / "README.md").read_text(encoding="utf-8")
    assert "2 number(s) in the units of the dataset's targets" in card
    assert "npy" in card
