"""Decodes samples into shards, once for all processes of a machine.

Threads decode: Pillow, libsndfile, soxr and hashlib leave Python's lock while they work, and a
script that calls the library needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from inn_automl.core.errors import CorruptFileError, DatasetError, StorageError
from inn_automl.core.home import CACHE_DIR_VARIABLE, cache_root
from inn_automl.core.locking import file_lock
from inn_automl.core.storage import read_json, replacing, sha256_of, write_json
from inn_automl.data.cache.folder import key_of, lease, make_room, shard_path, touch
from inn_automl.data.cache.shards import ShardedArray, rows_per_shard

MAX_THREADS = 16
DIGEST_BYTES = 16
_LEVELS = np.arange(256.0)


@dataclass(frozen=True)
class Produced:
    """One decoded sample, and the digest of what it was decoded from (`DIGEST_BYTES` bytes)."""

    values: np.ndarray
    digest: bytes


@dataclass(frozen=True, eq=False)
class CachedSamples:
    """The samples of a dataset in the cache.

    Attributes:
        x: all of them (N, ...); those that could not be decoded are zeros.
        moments: (N, C, 2) float64, mean and mean squared deviation of each channel of a sample.
        digests: (N, 16) uint8, of what each sample was decoded from.
        faults: why samples could not be decoded, by position.
        content_hash: SHA-256 over the shards.
    """

    x: ShardedArray
    moments: np.ndarray
    digests: np.ndarray
    faults: Mapping[int, str]
    content_hash: str


def cached_samples(
    identity: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: Any,
    produce: Callable[[int], Produced],
    *,
    what: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> CachedSamples:
    """The samples that `identity` determines, from the cache or decoded into it.

    A build that was killed goes on where it was; other processes that want the same wait for it;
    a shard whose hash is not the recorded one is made again.

    Args:
        identity: source and preprocessing, ready for JSON. Equal ones give equal samples.
        shape: (N, C, ...) of all samples.
        dtype: of their values.
        produce: decodes the sample at a position; called in threads. A `DatasetError` is recorded
            as a fault of that sample.
        what: the dataset in messages.
        on_progress: called with samples done and in all.

    Raises:
        StorageError: the cache cannot be written, or has no room.
    """
    root = cache_root()
    folder = root / key_of({**identity, "shape": list(shape), "dtype": np.dtype(dtype).str})
    with file_lock(root / f"{folder.name}.lock", timeout_s=None):
        build = _Build(folder, shape, np.dtype(dtype), produce, on_progress)
        missing = build.missing()
        if missing:
            num_bytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
            make_room(root, num_bytes, keep=folder, what=what)
            try:
                build.make(missing)
            except StorageError as error:
                raise StorageError(
                    f"the decoded samples of {what} could not be written: {error} What is there "
                    f"is kept. Set {CACHE_DIR_VARIABLE} (or --cache-dir) to a folder on another "
                    "disk, or choose a smaller input size."
                ) from error
        touch(folder)
        return build.opened()


def produced_in_memory(
    produce: Callable[[int], Produced], shape: tuple[int, ...], dtype: Any
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """All samples (N, ...) in memory, the digests (N, 16) of what they were decoded from, and
    faults by position; those that could not be decoded are zeros.
    """
    x = np.zeros(shape, dtype)
    digests = np.zeros((shape[0], DIGEST_BYTES), np.uint8)
    faults: dict[int, str] = {}

    def decode(row: int) -> None:
        try:
            made = produce(row)
        except DatasetError as error:
            faults[row] = str(error)
            return
        x[row] = made.values
        digests[row] = np.frombuffer(made.digest, np.uint8)

    with ThreadPoolExecutor(_num_threads()) as pool:
        for _ in pool.map(decode, range(shape[0])):
            pass
    return x, digests, dict(sorted(faults.items()))


class _Build:
    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        produce: Callable[[int], Produced],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.folder, self.shape, self.dtype = folder, shape, dtype
        self.produce, self.on_progress = produce, on_progress
        self.per_shard = rows_per_shard(int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
        self.num_shards = -(-shape[0] // self.per_shard)
        self.lease = lease(folder) if folder.exists() else None

    def rows(self, number: int) -> range:
        start = number * self.per_shard
        return range(start, min(start + self.per_shard, self.shape[0]))

    def missing(self) -> list[int]:
        """Shards that are not there, or not what was recorded."""
        numbers = range(self.num_shards)
        with ThreadPoolExecutor(_num_threads()) as pool:
            whole = pool.map(self._is_whole, numbers)
            return [number for number, is_whole in zip(numbers, whole, strict=True) if not is_whole]

    def _is_whole(self, number: int) -> bool:
        try:
            record = read_json(self._record(number))
            path = shard_path(self.folder, number)
            if not (self.folder / f"{number:06d}.samples.npz").exists():
                return False
            # Hashing what nobody wrote to since would take minutes for a large dataset.
            seen = _seen(path)
            if record["seen"] == seen:
                return True
            if sha256_of(path) != record["sha256"]:
                return False
            write_json(self._record(number), {**record, "seen": _seen(path)})
            return True
        except (OSError, ValueError, KeyError, TypeError, CorruptFileError):
            return False

    def make(self, missing: list[int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.part"):  # of a build that was killed
            left.unlink(missing_ok=True)
        self.lease = lease(self.folder)
        total = self.shape[0]
        done = total - sum(len(self.rows(number)) for number in missing)
        with ThreadPoolExecutor(_num_threads()) as decoders, ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for number in missing:
                shard = self._decoded(number, decoders)
                if writing is not None:
                    writing.result()
                writing = writer.submit(self._write, number, *shard)
                done += len(self.rows(number))
                if self.on_progress is not None:
                    self.on_progress(done, total)
            if writing is not None:
                writing.result()

    def _decoded(
        self, number: int, decoders: ThreadPoolExecutor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, str]]:
        rows = self.rows(number)
        values = np.zeros((len(rows), *self.shape[1:]), self.dtype)
        moments = np.zeros((len(rows), self.shape[1], 2))
        digests = np.zeros((len(rows), DIGEST_BYTES), np.uint8)
        faults: dict[int, str] = {}

        def decode(row: int) -> None:
            position = row - rows.start
            try:
                made = self.produce(row)
            except DatasetError as error:
                faults[row] = str(error)
                return
            values[position] = made.values
            moments[position] = moments_of(values[position])
            digests[position] = np.frombuffer(made.digest, np.uint8)

        for _ in decoders.map(decode, rows):
            pass
        return values, moments, digests, faults

    def _write(
        self,
        number: int,
        values: np.ndarray,
        moments: np.ndarray,
        digests: np.ndarray,
        faults: dict[int, str],
    ) -> None:
        self._record(number).unlink(missing_ok=True)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, np.lib.format.header_data_from_array_1_0(values)
        )
        content = values.reshape(-1).view(np.uint8).data
        digest = sha256(header.getvalue())
        digest.update(content)
        path = shard_path(self.folder, number)
        with replacing(path, num_bytes=values.nbytes) as temporary, temporary.open("wb") as file:
            file.write(header.getvalue())
            file.write(content)
        with (
            replacing(self.folder / f"{number:06d}.samples.npz") as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, moments=moments, digests=digests)
        record = {
            "sha256": digest.hexdigest(),
            "offset": len(header.getvalue()),
            "seen": _seen(path),
            "faults": {str(row): text for row, text in sorted(faults.items())},
        }
        write_json(self._record(number), record)

    def opened(self) -> CachedSamples:
        moments, digests, offsets, faults, digest = [], [], [], {}, sha256()
        numbers = range(self.num_shards)
        for number in numbers:
            record = read_json(self._record(number))
            offsets.append(int(record["offset"]))
            digest.update(record["sha256"].encode())
            faults.update({int(row): text for row, text in record["faults"].items()})
            with np.load(self.folder / f"{number:06d}.samples.npz", allow_pickle=False) as arrays:
                moments.append(arrays["moments"])
                digests.append(arrays["digests"])
        return CachedSamples(
            x=ShardedArray(
                [shard_path(self.folder, number) for number in numbers],
                [len(self.rows(number)) for number in numbers],
                offsets,
                self.shape[1:],
                self.dtype,
                folder=self.folder,
            ),
            moments=np.concatenate(moments),
            digests=np.concatenate(digests),
            faults=faults,
            content_hash=digest.hexdigest(),
        )

    def _record(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"


def moments_of(sample: np.ndarray) -> np.ndarray:
    """(C, 2) float64: mean and mean squared deviation of each channel of (C, ...)."""
    if sample.dtype == np.uint8:
        # Exact, and several times as fast as a copy in float64.
        counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in sample])
        counts = counts / counts.sum(axis=1, keepdims=True)
        mean = counts @ _LEVELS
        return np.stack([mean, (counts * (_LEVELS - mean[:, None]) ** 2).sum(axis=1)], axis=1)
    flat = sample.reshape(len(sample), -1).astype(np.float64)
    return np.stack([flat.mean(axis=1), flat.var(axis=1)], axis=1)


def _seen(path: Path) -> list[int]:
    """What tells that nobody wrote to a file since."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _num_threads() -> int:
    return min(MAX_THREADS, len(os.sched_getaffinity(0)))
