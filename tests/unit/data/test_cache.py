"""The cache of decoded samples: shards, their identity, and what survives a kill."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from inn_automl.core.errors import CorruptFileError, DatasetFormatError, SpecError, StorageError
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl.data.cache import CachedSamples, Produced, cached_samples, shards
from inn_automl.data.cache.folder import CACHE_MAX_BYTES_VARIABLE

SHAPE = (23, 2, 3, 4)
VALUES = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, whose shards hold five samples."""
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(CACHE_MAX_BYTES_VARIABLE, raising=False)
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 24)
    return tmp_path / "cache"


def made(
    calls: list[int] | None = None, name: str = "a", values: np.ndarray = VALUES
) -> CachedSamples:
    def produce(position: int) -> Produced:
        if calls is not None:
            calls.append(position)
        return Produced(values[position], bytes([position]) * 16)

    return cached_samples({"name": name}, SHAPE, np.uint8, produce, what="'pets'")


def test_it_reads_as_an_array_does() -> None:
    x = made().x
    assert (x.shape, x.dtype, x.ndim, len(x), x.nbytes) == (SHAPE, np.uint8, 4, 23, VALUES.nbytes)
    np.testing.assert_array_equal(x[:], VALUES)
    for index in (3, -1, np.int64(7), slice(2, 19, 3), slice(None, None, -1), [4, 4, 22, 0], []):
        np.testing.assert_array_equal(x[index], VALUES[index])
    mask = VALUES[:, 0, 0, 0] > 128
    np.testing.assert_array_equal(x[mask], VALUES[mask])
    np.testing.assert_array_equal(x[np.array([5, 6, 7, 1]), 1:], VALUES[[5, 6, 7, 1], 1:])
    assert x[3, 0, 1, 2] == VALUES[3, 0, 1, 2]
    for outside in (23, -24, [0, 23]):
        with pytest.raises(IndexError):
            x[outside]
    np.testing.assert_array_equal(np.stack(list(x)), VALUES)


def test_a_view_of_rows_and_a_pickle_read_the_same() -> None:
    x = made().x
    chosen = x.take(np.array([20, 3, 3, 11]))
    np.testing.assert_array_equal(chosen[:], VALUES[[20, 3, 3, 11]])
    np.testing.assert_array_equal(chosen.take(np.array([3, 0]))[:], VALUES[[11, 20]])
    content = pickle.dumps(chosen)
    assert len(content) < 3000
    np.testing.assert_array_equal(pickle.loads(content)[1:], VALUES[[3, 3, 11]])  # noqa: S301


def test_moments_and_digests() -> None:
    cached = made()
    np.testing.assert_allclose(cached.moments[..., 0], VALUES.mean(axis=(2, 3)))
    np.testing.assert_allclose(cached.moments[..., 1], VALUES.var(axis=(2, 3)))
    np.testing.assert_array_equal(cached.digests[:, 5], np.arange(23))


def test_it_is_made_once() -> None:
    calls: list[int] = []
    first, again = made(calls), made(calls)
    assert sorted(calls) == list(range(23))
    assert first.content_hash == again.content_hash
    other = made(calls, name="b", values=VALUES ^ 1)
    assert len(calls) == 46
    assert other.content_hash != first.content_hash


def test_a_build_that_stopped_goes_on(root: Path) -> None:
    def produce(position: int) -> Produced:
        if position >= 12:
            raise KeyboardInterrupt
        return Produced(VALUES[position], bytes(16))

    with pytest.raises(KeyboardInterrupt):
        cached_samples({"name": "a"}, SHAPE, np.uint8, produce, what="'pets'")
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    (folder / ".000001.npy.abc.part").write_bytes(b"left by a kill")
    calls: list[int] = []
    np.testing.assert_array_equal(made(calls).x[:], VALUES)
    assert min(calls) >= 5
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize("damage", ["flipped", "shorter", "gone", "record", "samples"])
def test_damaged_shards_are_made_again(root: Path, damage: str) -> None:
    cached = made()
    folder = cached.x.folder
    assert folder is not None
    path = folder / "000002.npy"
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[-3] ^= 255
        path.write_bytes(content)
    elif damage == "shorter":
        os.truncate(path, 150)
        with pytest.raises(CorruptFileError, match="gone or cut short: run the job again"):
            cached.x[10:15]
    elif damage == "gone":
        path.unlink()
        with pytest.raises(CorruptFileError, match="gone or cut short"):
            cached.x[12]
    elif damage == "record":
        (folder / "000002.json").write_text("{")
    else:
        (folder / "000002.samples.npz").unlink()
    calls: list[int] = []
    again = made(calls)
    assert sorted(calls) == list(range(10, 15))
    np.testing.assert_array_equal(again.x[:], VALUES)
    assert again.content_hash == cached.content_hash


def test_an_untouched_shard_with_a_new_date_is_kept(root: Path) -> None:
    folder = made().x.folder
    assert folder is not None
    os.utime(folder / "000001.npy", (1, 1))
    calls: list[int] = []
    made(calls)
    assert calls == []


def test_faults_are_recorded_and_kept() -> None:
    def produce(position: int) -> Produced:
        if position in (3, 17):
            raise DatasetFormatError(f"{position} is broken")
        return Produced(VALUES[position], bytes(16))

    for _ in range(2):
        cached = cached_samples({"name": "a"}, SHAPE, np.uint8, produce, what="'pets'")
        assert cached.faults == {3: "3 is broken", 17: "17 is broken"}
        assert not cached.x[17].any()


def test_the_least_recently_used_gives_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {}
    for age, name in enumerate("abc"):
        folder = made(name=name).x.folder
        assert folder is not None
        os.utime(folder, (1000 + age, 1000 + age))
        names[name] = folder
    size = sum(file.stat().st_size for file in names["a"].iterdir())
    monkeypatch.setenv(CACHE_MAX_BYTES_VARIABLE, str(3 * size))
    kept = made(name="a").x  # used again: b is now the oldest
    made(name="d")
    assert [folder.exists() for folder in names.values()] == [True, False, True]
    np.testing.assert_array_equal(kept[:], VALUES)


def test_what_is_in_use_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made()
    monkeypatch.setenv(CACHE_MAX_BYTES_VARIABLE, str(VALUES.nbytes + 100))
    with pytest.raises(StorageError, match=r"has room for .*--cache-dir.*CACHE_MAX_BYTES"):
        made(name="b")
    np.testing.assert_array_equal(first.x[:], VALUES)


def test_bounds_and_places_that_cannot_be(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_MAX_BYTES_VARIABLE, "much")
    with pytest.raises(SpecError, match="CACHE_MAX_BYTES = 'much' is no number of bytes"):
        made()
    monkeypatch.delenv(CACHE_MAX_BYTES_VARIABLE)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(StorageError):
        made()


def test_a_disk_that_gets_full_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, 0

    def full(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"no room for .* is kept\. Set INN_.*--cache"):
            made()
    calls_of_decoder: list[int] = []
    np.testing.assert_array_equal(made(calls_of_decoder).x[:], VALUES)
    assert min(calls_of_decoder) == 10
