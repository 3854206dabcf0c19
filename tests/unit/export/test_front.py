"""The network behind what brings files of any size to its input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
from PIL import Image

from inn_automl.core.errors import VerificationError
from inn_automl.export.bundle import extract_bundle
from inn_automl.export.front import any_size_model
from inn_automl.export.front_verification import INT8_FRONT_TOLERANCE, verify_front
from inn_automl.export.preparation import geometry, softmax, window_starts, windows_of
from inn_automl.export.quantization import quantize_onnx
from inn_automl.export.records import ImageInput
from tests.unit.export.file_models import (
    AUDIO,
    image_input,
    input_shape,
    network,
    preprocessing,
    write_file_bundle,
)

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "use-a-bundle.md"

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "moon", "page", "rocket")
LARGEST_DIFFERENCE = 1e-3
"""Of a probability, between the front and Pillow; what is stated in docs/reference/bundle.md."""


def run(folder: Path, model: bytes, any_size: bytes, given: np.ndarray) -> np.ndarray:
    """The output of `model_any_size.onnx` as a user runs it: from files that lie together."""
    (folder / "model.onnx").write_bytes(model)
    (folder / "model_any_size.onnx").write_bytes(any_size)
    session = onnxruntime.InferenceSession(
        folder / "model_any_size.onnx", providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: given})[0]
    return found


def by_pillow(photograph: Image.Image, image: ImageInput, model: bytes) -> np.ndarray:
    """Probabilities of the network behind Pillow."""
    how = geometry(image)
    plain = photograph.convert("L" if image.channels == 1 else "RGB")
    height, width = how.scaled_size((plain.height, plain.width))
    resized = plain.resize((width, height), Image.Resampling[image.interpolation.upper()])
    pixels = np.asarray(resized).reshape(height, width, -1).transpose(2, 0, 1)
    batch = how.evaluated(how.framed(pixels))[None].astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return softmax(session.run(None, {"input": batch})[0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("resize", "interpolation"),
    [("crop", "bilinear"), ("crop", "bicubic"), ("pad", "bilinear"), ("stretch", "bicubic")],
)
def test_photographs_get_the_class_that_they_get_behind_pillow(
    tmp_path: Path, channels: int, resize: str, interpolation: str
) -> None:
    image = image_input(channels=channels, resize=resize, interpolation=interpolation)
    described = preprocessing(image)
    model = network(described)
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)()
        wanted = by_pillow(Image.fromarray(pixels), image, model)
        found = run(tmp_path, model, any_size, pixels.reshape(*pixels.shape[:2], -1))
        assert found.argmax() == wanted.argmax()
        assert np.abs(found - wanted).max() < LARGEST_DIFFERENCE, name


def test_the_documented_code_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = preprocessing(image_input())
    extract_bundle(write_file_bundle(tmp_path, described), tmp_path / "bundle")
    photograph = Image.fromarray(skimage.data.astronaut())
    photograph.save(tmp_path / "photo.jpg")
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    wanted = by_pillow(Image.open("photo.jpg"), image_input(), network(described))
    assert np.abs(names["probabilities"] - wanted).max() < LARGEST_DIFFERENCE


def test_a_letterbox_is_filled(tmp_path: Path) -> None:
    """A wide white image in the middle of a plane of 7; the network passes its input on."""
    image = image_input(channels=1, resize="pad", input_size=(8, 8), fill=7.0)
    described = preprocessing(image)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> same (float[batch, 1, 8, 8] input)'
        " => (float[batch, 1, 8, 8] output) { output = Identity (input) }"
    ).SerializeToString()
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    found = run(tmp_path, model, any_size, np.full((10, 40, 1), 255, np.uint8))[0, 0]
    assert (found[3:5] == 255).all()
    assert (np.delete(found, [3, 4], axis=0) == 7).all()


def test_transparency_is_dropped_and_grey_becomes_colour(tmp_path: Path) -> None:
    described = preprocessing(image_input())
    model = network(described)
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    colour = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    alpha = np.dstack([colour, np.full((50, 60), 3, np.uint8)])
    grey = colour[:, :, :1]
    pairs = [(alpha, colour), (grey, np.repeat(grey, 3, axis=2))]
    for one, other in pairs:
        found = [run(tmp_path, model, any_size, given) for given in (one, other)]
        assert np.array_equal(*found)


def test_grey_of_16_bits_keeps_its_values() -> None:
    described = preprocessing(image_input(channels=1, dtype="float32"))
    model = network(described)
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    samples = np.random.default_rng(0).integers(0, 65536, (3, *input_shape(described)))
    assert verify_front(any_size, model, samples, described) < 1e-5


def test_weights_are_stored_once(tmp_path: Path) -> None:
    described = preprocessing(image_input())
    model = network(described)
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    assert len(any_size) < 6000 < 800_000 < len(model)
    (tmp_path / "model.onnx").write_bytes(model)
    (tmp_path / "any.onnx").write_bytes(any_size)
    onnx.checker.check_model(tmp_path / "any.onnx")
    loaded = {one.name: one for one in onnx.load(tmp_path / "any.onnx").graph.initializer}
    own = {one.name: one for one in onnx.load_from_string(model).graph.initializer}
    for name in ("first", "second"):
        assert np.array_equal(*(onnx.numpy_helper.to_array(one[name]) for one in (loaded, own)))


def test_arrays_have_no_front() -> None:
    described = preprocessing()
    assert any_size_model(network(described), described, "model.onnx") is None


@pytest.mark.parametrize("length", [1, 250, 400, 401, 599, 600, 1000, 1234])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_recordings_are_cut_into_windows(tmp_path: Path, length: int, num_channels: int) -> None:
    described = preprocessing(audio=AUDIO)
    model = network(described)
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    recording = np.random.default_rng(0).normal(0, 0.1, (length, num_channels))
    recording = recording.astype(np.float32)
    windows = windows_of(recording, AUDIO)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = softmax(session.run(None, {"input": windows})[0]).mean(axis=0, keepdims=True)
    found = run(tmp_path, model, any_size, recording)
    assert found.shape == (1, 4)
    assert np.abs(found - wanted).max() < 1e-6


def test_windows_overlap_by_half_and_the_last_one_ends_with_the_recording() -> None:
    assert window_starts(1000, AUDIO).tolist() == [0, 200, 400, 600]
    assert window_starts(1001, AUDIO).tolist() == [0, 200, 400, 600, 601]
    assert window_starts(3, AUDIO).tolist() == [0]
    short = windows_of(np.ones((3, 2), np.float32), AUDIO)
    assert (short.shape, short.sum()) == ((1, 1, 400), 3)


def test_a_front_of_another_geometry_is_refused() -> None:
    samples = np.random.default_rng(0).integers(0, 256, (4, 3, 40, 56))
    described = preprocessing(image_input())
    model = network(described)
    other = preprocessing(image_input(resize="stretch"))
    for given, wanted in ((other, described), (described, other)):
        any_size = any_size_model(model, given, "model.onnx")
        assert any_size is not None
        with pytest.raises(VerificationError, match="differs by"):
            verify_front(any_size, model, samples, wanted)
    with pytest.raises(VerificationError, match="cannot be run"):
        verify_front(b"no model", model, samples, described)


def test_an_int8_model_has_a_front_too(tmp_path: Path) -> None:
    """Its convolutions make ONNX Runtime change the layout of the graph."""
    described = preprocessing(image_input())
    body = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> net (float[batch, 3, 40, 56] input)'
        " => (float[batch, 4] logits) <float[16, 3, 3, 3] first, float[4, 16, 3, 3] second>"
        " { a = Pad (input, pads) b = Conv <strides = [2, 2]> (a, first) c = Relu (b)"
        " d = Conv (c, second) e = GlobalAveragePool (d) logits = Flatten (e) }"
    )
    rng = np.random.default_rng(0)
    del body.graph.initializer[:]
    for name, value in (
        ("first", rng.normal(0, 0.02, (16, 3, 3, 3)).astype(np.float32)),
        ("second", rng.normal(0, 0.2, (4, 16, 3, 3)).astype(np.float32)),
        ("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1])),
    ):
        body.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for index, node in enumerate(body.graph.node):
        node.name = f"{node.op_type}_{index}"
    (tmp_path / "float.onnx").write_bytes(body.SerializeToString())
    samples = rng.integers(0, 256, (8, 3, 40, 56)).astype(np.uint8)
    quantize_onnx(tmp_path / "float.onnx", tmp_path / "int8.onnx", samples)
    model = (tmp_path / "int8.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_from_string(model))
    any_size = any_size_model(model, described, "model.onnx")
    assert any_size is not None
    difference = verify_front(any_size, model, samples, described, tolerance=INT8_FRONT_TOLERANCE)
    assert difference < INT8_FRONT_TOLERANCE
