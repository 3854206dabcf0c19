"""Recordings to arrays."""

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

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import audio, load_dataset
from inn_automl.data.audio import load_recordings
from inn_automl.data.cache import ShardedArray
from inn_automl.data.catalog import Catalog
from inn_automl.data.files import BytesContent, DatasetFile

Tree = Callable[[dict[str, bytes]], Path]


def read(
    *contents: bytes, suffix: str = ".wav", **options: Any
) -> tuple[np.ndarray, int | None, tuple[str, ...]]:
    samples, _, faults = load_recordings(catalog(*contents, suffix=suffix), DataOptions(**options))
    for fault in faults.values():
        raise DatasetFormatError(fault)
    return samples.x, samples.sample_rate_hz, samples.notes


def catalog(*contents: bytes, suffix: str = ".wav", **attributes: Any) -> Catalog:
    entries = [
        DatasetFile(("a", f"{i}{suffix}"), BytesContent(content))
        for i, content in enumerate(contents)
    ]
    given = {"train": np.arange(len(entries))}
    return Catalog(
        "audio", entries, **{"labels": None, "given": given, "where": "'sounds'", **attributes}
    )


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


def test_channels_are_mixed_down(make: Any) -> None:
    signal = tone(channels=2)
    x, _, notes = read(make.wav(signal, subtype="FLOAT"), make.wav(tone(), subtype="FLOAT"))
    np.testing.assert_allclose(x[0, 0], signal.mean(1), atol=1e-7)
    np.testing.assert_allclose(x[1, 0], tone(), atol=1e-7)
    assert notes == ("1 of 2 recordings were mixed down to one channel.",)


def test_lengths_are_brought_to_the_median_at_the_end(make: Any) -> None:
    signals = [tone(n) for n in (30, 50, 50, 50, 74)]
    x, _, notes = read(*(make.wav(signal, subtype="FLOAT") for signal in signals))
    assert x.shape == (5, 1, 50)
    np.testing.assert_allclose(x[0, 0], np.pad(signals[0], (0, 20)), atol=1e-7)
    np.testing.assert_allclose(x[4, 0], signals[4][:50], atol=1e-7)
    assert notes == (
        "2 of 5 recordings were cut or padded with zeros at their end to 50 samples (0.00625 s).",
    )


def test_long_recordings_are_cut_into_windows_that_stay_together(make: Any) -> None:
    signals = [tone(n) for n in (50, 50, 50, 130)]
    found = catalog(
        *(make.wav(signal, subtype="FLOAT") for signal in signals),
        labels=np.array(["a", "b", "a", "b"]),
        given={"train": np.array([0, 2, 3]), "test": np.array([1])},
    )
    samples, cut, faults = load_recordings(found, DataOptions())
    assert samples.x.shape == (6, 1, 50) and not faults
    whole = np.pad(signals[3], (0, 20))
    np.testing.assert_allclose(samples.x[3:].reshape(-1), whole, atol=1e-7)
    assert cut.labels is not None and cut.labels.tolist() == ["a", "b", "a", "b", "b", "b"]
    assert {split: indices.tolist() for split, indices in cut.given.items()} == {
        "train": [0, 2, 3, 4, 5],
        "test": [1],
    }
    assert cut.groups is not None
    assert cut.groups.tolist() == ["a/0.wav", "a/1.wav", "a/2.wav", *["a/3.wav"] * 3]
    assert samples.notes == (
        "1 of 4 recordings were cut into 6 windows of 0.00625 s in all; those of one recording are "
        "kept in one split.",
    )


def test_windows_of_the_length_asked_for(make: Any) -> None:
    signal = tone(500)
    x, rate, _ = read(make.wav(signal, subtype="FLOAT"), window_seconds=0.02)
    assert (x.shape, rate) == ((3, 1, 160), 8000)
    np.testing.assert_allclose(x.reshape(-1)[:480], signal[:480], atol=1e-7)


def test_groups_that_are_given_stay(make: Any) -> None:
    found = catalog(*(make.wav(tone(n)) for n in (50, 100)), groups=np.array(["anna", "bert"]))
    _, cut, _ = load_recordings(found, DataOptions(window_seconds=50 / 8000))
    assert cut.groups is not None and cut.groups.tolist() == ["anna", "bert", "bert"]


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
    assert "8 of 10 recordings" in dataset.notes[0]


def sine(rate_hz: int, seconds: float = 0.1, hz: float = 440) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def test_other_rates_are_resampled_to_the_most_common_one(make: Any) -> None:
    rates = (8000, 8000, 16_000, 22_050)
    x, rate, notes = read(*(make.wav(sine(r), rate_hz=r, subtype="FLOAT") for r in rates))
    assert (x.shape, rate) == ((4, 1, 800), 8000)
    middle = slice(100, 700)  # the filter sees silence beyond the ends
    for row in x[1:]:
        np.testing.assert_allclose(row[0, middle], sine(8000)[middle], atol=2e-3)
    assert notes == ("2 of 4 recordings were resampled to 8000 Hz.",)


def test_the_rate_is_the_users_or_16_khz_at_most(make: Any) -> None:
    content = make.wav(sine(44_100), rate_hz=44_100)
    assert read(content)[1] == 16_000
    x, rate, _ = read(content, sample_rate_hz=44_100)
    assert (x.shape[2], rate) == (4410, 44_100)
    assert read(content, sample_rate_hz=8000)[0].shape[2] == 800


def test_later_windows_are_resampled_from_where_they_begin(make: Any) -> None:
    content = make.wav(sine(48_000, 0.3), rate_hz=48_000, subtype="FLOAT")
    x, _, _ = read(content, sample_rate_hz=16_000, window_seconds=0.1)
    assert x.shape == (3, 1, 1600)
    expected = sine(16_000, 0.3).reshape(3, 1600)
    np.testing.assert_allclose(x[:, 0, 100:-100], expected[:, 100:-100], atol=5e-3)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("FLAC", "PCM_16", 2**-15),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
        ("AIFF", "PCM_16", 2**-15),
    ],
)
def test_what_libsndfile_reads(name: str, subtype: str, tolerance: float) -> None:
    stream = io.BytesIO()
    signal = sine(16_000, 0.3)
    soundfile.write(stream, signal, 16_000, format=name, subtype=subtype)
    x, rate, _ = read(stream.getvalue(), suffix=f".{name.lower()}")
    assert rate == 16_000
    middle = slice(1000, 4000)
    np.testing.assert_allclose(x[0, 0, middle], signal[middle], atol=tolerance)


def test_broken_recordings_are_told_together_or_left_out(make: Any) -> None:
    contents = [make.wav(tone()) for _ in range(8)]
    contents[2], contents[5] = b"nothing", contents[5][:60]
    with pytest.raises(DatasetFormatError, match=r"2 of 8 samples.*(\n.*){3}skip_broken=0.25"):
        read(*contents)
    samples, kept, _ = load_recordings(catalog(*contents), DataOptions(skip_broken=0.25))
    assert samples.x.shape == (6, 1, 50)
    assert [entry.parts[-1] for entry in kept.entries] == [f"{i}.wav" for i in (0, 1, 3, 4, 6, 7)]


def test_many_recordings_are_read_from_the_cache(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contents = [make.wav(tone(n)) for n in (50, 50, 150)]
    expected = read(*contents)[0]
    monkeypatch.setattr(audio, "MEMORY_BYTES", 0)
    monkeypatch.setenv("INN_AUTOML_CACHE_DIR", str(tmp_path))
    x, _, _ = read(*contents)
    assert isinstance(x, ShardedArray)
    np.testing.assert_array_equal(x[np.arange(5)], expected)


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
        match=rf"'a/1.wav' in 'sounds' cannot be read as audio \({reason}.*replace",
    ):
        read(make.wav(tone()), spoil(make.wav(tone())))


def test_files_written_to_a_pipe_do_not_know_their_size(make: Any) -> None:
    content = bytearray(make.wav(tone()))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    assert read(bytes(content))[0].shape == (1, 1, 50)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_anywhere_is_a_dataset_error_or_an_array(make: Any, data: st.DataObject) -> None:
    content = bytearray(make.wav(tone()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DatasetFormatError):
        x, _, _ = read(bytes(content))
        assert np.isfinite(x).all()
