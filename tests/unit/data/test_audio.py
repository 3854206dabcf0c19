"""WAV files to arrays."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import limits, load_dataset
from inn_automl.data.audio import read_wavs
from inn_automl.data.files import BytesContent, DatasetFile

Tree = Callable[[dict[str, bytes]], Path]


def read(*contents: bytes) -> tuple[np.ndarray, int, tuple[str, ...]]:
    entries = [
        DatasetFile(("a", f"{i}.wav"), BytesContent(content)) for i, content in enumerate(contents)
    ]
    return read_wavs(entries, "'sounds'")


def tone(length: int = 50, channels: int | None = None) -> np.ndarray:
    shape = (length,) if channels is None else (length, channels)
    return np.random.default_rng(length).uniform(-0.9, 0.9, shape)


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_16", 2**-15),
        ("PCM_U8", 2**-7),
        ("PCM_24", 2**-23),
        ("PCM_32", 2**-22),
        ("FLOAT", 1e-7),
        ("DOUBLE", 1e-7),
    ],
)
def test_values_are_in_units_of_full_scale(make: Any, subtype: str, tolerance: float) -> None:
    signal = tone()
    x, rate, notes = read(make.wav(signal, subtype=subtype))
    assert (x.shape, x.dtype, rate, notes) == ((1, 1, 50), np.float32, 8000, ())
    np.testing.assert_allclose(x[0, 0], signal, atol=tolerance)


def test_stereo_is_two_channels(make: Any) -> None:
    signal = tone(channels=2)
    x, _, _ = read(make.wav(signal, subtype="FLOAT"))
    np.testing.assert_allclose(x[0], signal.T, atol=1e-7)


def test_lengths_are_brought_to_the_median_at_the_end(make: Any) -> None:
    signals = [tone(n) for n in (30, 50, 50, 50, 900)]
    x, _, notes = read(*(make.wav(signal, subtype="FLOAT") for signal in signals))
    assert x.shape == (5, 1, 50)
    np.testing.assert_allclose(x[0, 0], np.pad(signals[0], (0, 20)), atol=1e-7)
    np.testing.assert_allclose(x[4, 0], signals[4][:50], atol=1e-7)
    assert notes == (
        "2 of 5 WAV files were cut or padded with zeros at their end to 50 samples, the median "
        "length.",
    )


def test_a_folder_of_sounds(make: Any, tree: Tree) -> None:
    files = {
        f"{name}/{i}.WAV": make.wav(tone(40 + i), rate_hz=16000)
        for name in ("yes", "no")
        for i in range(5)
    }
    dataset = load_dataset(tree(files))
    assert (dataset.kind, dataset.input_shape, dataset.classes) == (
        "signal",
        (1, 42),
        ("no", "yes"),
    )
    assert dataset.sample_rate_hz == dataset.metadata()["sample_rate_hz"] == 16000
    assert "8 of 10 WAV files" in dataset.notes[0]


def test_different_sample_rates(make: Any) -> None:
    with pytest.raises(
        DatasetFormatError,
        match=r"'a/1.wav' in 'sounds' has a sample rate of 16000 Hz but 'a/0.wav' of 8000",
    ):
        read(make.wav(tone()), make.wav(tone(), rate_hz=16000))


def test_different_channel_counts(make: Any) -> None:
    with pytest.raises(
        DatasetFormatError,
        match=r"'a/1.wav' .* has 2 channel\(s\) but 'a/0.wav' has 1: convert all",
    ):
        read(make.wav(tone()), make.wav(tone(channels=2)))


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf")])
def test_values_that_are_not_finite(make: Any, value: float, shown: str) -> None:
    signal = tone()
    signal[9] = value
    with pytest.raises(
        DatasetFormatError,
        match=rf"'a/0.wav' in 'sounds' holds NaN or infinite values, first {shown}",
    ):
        read(make.wav(signal, subtype="FLOAT"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda wav: b"", "Format not recognised"),
        (lambda wav: wav[:30], r"Error in WAV file\. No 'data' chunk marker\)"),
        (lambda wav: b"no sound at all" * 9, "Format not recognised"),
        (lambda wav: wav[:44], "it holds no samples"),
        (lambda wav: wav[:100], "it is cut short: 100 of 144 bytes"),
    ],
)
def test_corrupt_files(make: Any, spoil: Callable[[bytes], bytes], reason: str) -> None:
    with pytest.raises(
        DatasetFormatError,
        match=rf"'a/1.wav' in 'sounds' cannot be read as a WAV file \({reason}.*replace",
    ):
        read(make.wav(tone()), spoil(make.wav(tone())))


def test_another_format_under_a_wav_name() -> None:
    stream = io.BytesIO()
    soundfile.write(stream, tone(2000), 8000, format="FLAC")
    with pytest.raises(DatasetFormatError, match="its content is FLAC"):
        read(stream.getvalue())


def test_files_written_to_a_pipe_do_not_know_their_size(make: Any) -> None:
    content = bytearray(make.wav(tone()))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    assert read(bytes(content))[0].shape == (1, 1, 50)


def test_too_large_in_memory(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 2**10)
    with pytest.raises(
        DatasetFormatError,
        match=r"'sounds' would take 2 KiB in memory, more than the limit of 1 KiB",
    ):
        read(make.wav(tone(512)))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_anywhere_is_a_dataset_error_or_an_array(make: Any, data: st.DataObject) -> None:
    content = bytearray(make.wav(tone()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DatasetFormatError):
        x, _, _ = read(bytes(content))
        assert np.isfinite(x).all()
