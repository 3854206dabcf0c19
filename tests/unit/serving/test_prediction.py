"""A bundle on files: images, recordings and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from PIL import Image

from inn_automl import Predictor
from inn_automl.core.errors import CorruptFileError, InputError, StorageError
from inn_automl.export.bundle import extract_bundle
from inn_automl.export.preparation import softmax, windows_of
from inn_automl.export.records import AudioInput, Preprocessing
from inn_automl.serving import prediction
from inn_automl.serving.recordings import read_windows
from tests.unit.export.file_models import (
    AUDIO,
    CLASSES,
    image_input,
    network,
    preprocessing,
    write_file_bundle,
)

RNG = np.random.default_rng(0)


def colours(height: int, width: int) -> np.ndarray:
    """Smooth colours, which survive JPEG."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 255 / height, columns * 255 / width, (rows + columns) % 256]
    return np.stack(planes, axis=2).astype(np.uint8)


@pytest.fixture
def image_bundle(tmp_path: Path) -> Path:
    return write_file_bundle(tmp_path, preprocessing(image_input()))


def probabilities(described: Preprocessing, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(network(described), providers=["CPUExecutionProvider"])
    return softmax(session.run(None, {"input": batch.astype(np.float32)})[0])


def one(bundle: Path, path: Path) -> prediction.Prediction:
    (found,) = Predictor(bundle, threads=1).predict([path])
    return found


def test_an_image_of_the_stored_size_is_cut_to_its_centre(
    image_bundle: Path, tmp_path: Path
) -> None:
    pixels = colours(46, 64)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = one(image_bundle, tmp_path / "one.png")
    wanted = probabilities(
        preprocessing(image_input()), pixels[3:43, 4:60].transpose(2, 0, 1)[None]
    )
    assert found.output is not None
    assert np.allclose(found.output, wanted[0], atol=1e-6)
    assert found.label == CLASSES[int(wanted.argmax())]
    record = found.record()
    assert list(record) == ["path", "class", "probabilities"]
    assert list(record["probabilities"]) == list(CLASSES)
    assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_images_are_turned_upright_and_brought_to_colour(
    image_bundle: Path, tmp_path: Path
) -> None:
    """The same picture in six forms: sideways with EXIF, with alpha, with a palette."""
    upright = Image.fromarray(colours(90, 120))
    upright.save(tmp_path / "plain.png")
    upright.convert("RGBA").save(tmp_path / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "sideways.jpg", exif=exif, quality=98, subsampling=0
    )
    upright.quantize(256).save(tmp_path / "palette.gif")
    plain = one(image_bundle, tmp_path / "plain.png").output
    assert plain is not None
    for name, tolerance in (("alpha.png", 0.0), ("sideways.jpg", 0.02), ("palette.gif", 0.05)):
        found = one(image_bundle, tmp_path / name).output
        assert found is not None
        assert np.abs(found - plain).max() <= tolerance, name


def test_grey_of_16_bits_is_read_as_bytes_by_a_model_of_bytes(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing(image_input(channels=1)))
    grey = RNG.integers(0, 256, (46, 64))
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray((257 * grey).astype(np.uint16)).save(tmp_path / "16.png")
    first, second = (one(bundle, tmp_path / name).output for name in ("8.png", "16.png"))
    assert first is not None
    assert np.array_equal(first, second)


def test_batches_change_nothing_and_files_keep_their_order(
    image_bundle: Path, tmp_path: Path
) -> None:
    paths = []
    for number in range(2 * prediction.BATCH_SIZE + 3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(RNG.integers(0, 256, (50, 70, 3)).astype(np.uint8)).save(paths[-1])
    paths.insert(5, tmp_path / "missing.png")
    found = list(Predictor(image_bundle, threads=1).predict(paths))
    assert [one.path for one in found] == paths
    assert [index for index, one in enumerate(found) if one.fault] == [5]
    alone = one(image_bundle, paths[20]).output
    assert alone is not None
    assert found[20].output is not None
    assert np.allclose(found[20].output, alone, atol=1e-6)


def test_an_array_is_one_sample_as_in_the_dataset(image_bundle: Path, tmp_path: Path) -> None:
    sample = RNG.integers(0, 256, (3, 40, 56))
    np.save(tmp_path / "sample.npy", sample)
    np.save(tmp_path / "other.npy", sample[:, :10])
    (tmp_path / "broken.npy").write_bytes(b"no array")
    found = one(image_bundle, tmp_path / "sample.npy").output
    assert found is not None
    wanted = probabilities(preprocessing(image_input()), sample[None])[0]
    assert np.allclose(found, wanted, atol=1e-6)
    fault = one(image_bundle, tmp_path / "other.npy").fault
    assert "has the shape (3, 10, 56), and the model takes (3, 40, 56)" in str(fault)
    assert "cannot be read as an array" in str(one(image_bundle, tmp_path / "broken.npy").fault)


def test_a_model_of_arrays_takes_no_images(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing())
    assert "was trained on arrays" in str(one(bundle, tmp_path / "photo.png").fault)
    np.save(tmp_path / "sample.npy", np.ones((2, 8, 8)))
    assert one(bundle, tmp_path / "sample.npy").label in CLASSES


@pytest.mark.parametrize("rate_hz", [8000, 16000, 11025])
def test_a_recording_is_resampled_and_mixed_down(tmp_path: Path, rate_hz: int) -> None:
    """A tone of 440 Hz gives the same at any rate, as mono and as stereo of unequal sides."""
    bundle = write_file_bundle(tmp_path, preprocessing(audio=AUDIO))

    def tone(rate_hz: int, seconds: float = 0.4) -> np.ndarray:
        times = np.arange(round(rate_hz * seconds)) / rate_hz
        return (0.2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)

    soundfile.write(tmp_path / "mono.wav", tone(rate_hz), rate_hz, subtype="FLOAT")
    sides = np.stack([2 * tone(rate_hz), 0 * tone(rate_hz)], axis=1)
    soundfile.write(tmp_path / "stereo.flac", sides, rate_hz, subtype="PCM_24")
    batch = windows_of(tone(8000)[:, None], AUDIO)
    wanted = probabilities(preprocessing(audio=AUDIO), batch).mean(axis=0)
    for name in ("mono.wav", "stereo.flac"):
        found = one(bundle, tmp_path / name).output
        assert found is not None
        assert np.abs(found - wanted).max() < (1e-6 if rate_hz == 8000 else 0.02)


@pytest.mark.parametrize("length", [1, 399, 400, 401, 600, 5000, 5001])
@pytest.mark.parametrize("hop", [200, 133, 400])
def test_windows_are_the_same_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, hop: int
) -> None:
    audio = AudioInput(sample_rate_hz=100, channels=1, window_samples=400, hop_samples=hop)
    recording = RNG.normal(0, 0.1, (length, 1)).astype(np.float32)
    soundfile.write(tmp_path / "one.wav", recording, 100, subtype="FLOAT")
    monkeypatch.setattr("inn_automl.serving.recordings._BLOCK_SECONDS", 7)
    found = np.stack(list(read_windows(tmp_path / "one.wav", audio)))
    assert np.array_equal(found, windows_of(recording, audio))


def test_a_long_recording_is_resampled_in_pieces_as_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = RNG.normal(0, 0.1, (22050, 1)).astype(np.float32)
    soundfile.write(tmp_path / "one.wav", recording, 11025, subtype="FLOAT")
    whole = np.stack(list(read_windows(tmp_path / "one.wav", AUDIO)))
    monkeypatch.setattr("inn_automl.serving.recordings._BLOCK_SECONDS", 1)
    pieces = np.stack(list(read_windows(tmp_path / "one.wav", AUDIO)))
    assert whole.shape == pieces.shape == (79, 1, 400)
    assert np.abs(whole - pieces).max() < 1e-5


def test_faults_of_recordings(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing(audio=AUDIO))
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 8000)
    (tmp_path / "text.wav").write_text("no sound")
    faults = [
        str(found.fault)
        for found in Predictor(bundle).predict([tmp_path / "empty.wav", tmp_path / "text.wav"])
    ]
    assert "holds no samples" in faults[0]
    assert "cannot be read as a recording" in faults[1]


def test_regression_gives_targets(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing(), task="regression")
    np.save(tmp_path / "sample.npy", np.ones((2, 8, 8)))
    found = one(bundle, tmp_path / "sample.npy")
    assert found.label is None
    assert list(found.record()) == ["path", "targets"]
    assert len(found.record()["targets"]) == 2


def test_an_unpacked_bundle_does_as_well(image_bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(colours(60, 60)).save(tmp_path / "one.png")
    extract_bundle(image_bundle, tmp_path / "unpacked")
    found = [
        one(bundle, tmp_path / "one.png").output for bundle in (image_bundle, tmp_path / "unpacked")
    ]
    assert found[0] is not None
    assert np.array_equal(*found)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        Predictor(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("no ZIP")
    with pytest.raises(CorruptFileError, match="not a whole bundle"):
        Predictor(tmp_path / "text.zip")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorruptFileError, match=r"has no config\.json"):
        Predictor(tmp_path / "folder")


def test_super_resolution_is_no_prediction(tmp_path: Path) -> None:
    bundle = write_file_bundle(tmp_path, preprocessing(), task="super-resolution")
    with pytest.raises(InputError, match="enlarges images of 8 x 8"):
        Predictor(bundle)
