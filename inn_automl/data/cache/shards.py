"""An array that lies in shards on disk and is read a few samples at a time."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inn_automl.core.errors import CorruptFileError
from inn_automl.data.cache.folder import Lease, lease

SHARD_BYTES = 2**26
"""Bytes of one shard, at most (one sample at least): what is lost when a build is killed, and what
two of are in memory while it runs.
"""


def rows_per_shard(row_bytes: int) -> int:
    """Samples of `row_bytes` that a shard holds."""
    return max(1, SHARD_BYTES // max(1, row_bytes))


class ShardedArray:
    """Samples in files on disk, read like a numpy array along its first dimension.

    Every read copies what it returns and leaves nothing mapped, so that resident memory stays that
    of the batches. A pickle holds paths alone; processes of one machine share the page cache.

    Example: `x[3]` is one sample, `x[10:20]` and `x[np.array([5, 2])]` are batches.

    Attributes:
        shape: of the whole array.
        dtype: of its values.
        ndim: number of dimensions.

    Args:
        files: each holds samples one after the other, little-endian and in C order.
        counts: samples in each file.
        offsets: bytes of each file in front of its values.
        row_shape: shape of one sample.
        dtype: of the values.
        rows: positions in the files that this array shows, in its order; None for all.
        folder: folder of the cache that the files lie in, which is kept from being deleted; None
            where they are a user's own.
    """

    def __init__(
        self,
        files: Sequence[Path],
        counts: Sequence[int],
        offsets: Sequence[int],
        row_shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        rows: np.ndarray | None = None,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self.dtype = np.dtype(dtype)
        self._files = tuple(str(file) for file in files)
        self._offsets = tuple(offsets)
        self._ends = np.cumsum(np.asarray(counts, np.int64))
        self._rows = None if rows is None else np.asarray(rows, np.int64)
        self._row_bytes = int(np.prod(row_shape, dtype=np.int64)) * self.dtype.itemsize
        num_rows = int(self._ends[-1]) if rows is None else len(rows)
        self.shape: tuple[int, ...] = (num_rows, *row_shape)
        self.ndim = len(self.shape)
        self._lease: Lease | None = None if folder is None else lease(folder)
        self._recipe: Callable[[], ShardedArray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = str(self.folder or self._files[0])
        return f"ShardedArray({where!r}, shape={self.shape}, dtype={self.dtype})"

    @property
    def nbytes(self) -> int:
        """Bytes of all values, on disk."""
        return len(self) * self._row_bytes

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lease": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.folder is not None and self.folder.exists():
            self._lease = lease(self.folder)

    def with_recipe(self, recipe: Callable[[], ShardedArray]) -> ShardedArray:
        """The same array, which another machine makes again by `recipe` where it lacks the files.

        Args:
            recipe: makes an array of the same stored samples; pickled with this one.
        """
        remade = copy.copy(self)
        remade._recipe = recipe
        return remade

    def _make_here(self) -> None:
        """Makes the files of a cache that another machine has."""
        if self._recipe is None or self.folder is None or self.folder.exists():
            return
        made = self._recipe()
        self._files, self._ends, self._offsets = made._files, made._ends, made._offsets
        self.folder, self._lease = made.folder, made._lease

    def __getitem__(self, index: Any) -> np.ndarray:
        """A copy of one sample (int), or of several (slice, integer array or mask); further
        indices choose within samples.

        Raises:
            IndexError: there is no such sample.
            CorruptFileError: a shard is gone or cut short.
        """
        if isinstance(index, tuple):
            samples = self[index[0]]
            is_one = samples.ndim < self.ndim
            return samples[index[1:]] if is_one else samples[(slice(None), *index[1:])]
        if isinstance(index, (int, np.integer)):
            return self._read(self._checked(np.array([index], np.int64)))[0]
        if isinstance(index, slice):
            return self._read(np.arange(*index.indices(len(self)), dtype=np.int64))
        positions = np.asarray(index)
        if positions.dtype == np.bool_:
            if positions.shape != (len(self),):
                raise IndexError(f"a mask of shape {positions.shape} does not fit {len(self)} rows")
            positions = np.flatnonzero(positions)
        if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
            raise IndexError("samples are chosen by an integer, a slice, integers (n,) or a mask")
        return self._read(self._checked(positions.astype(np.int64)))

    def __iter__(self) -> Iterator[np.ndarray]:
        for row in range(len(self)):
            yield self[row]

    def take(self, rows: np.ndarray) -> ShardedArray:
        """The same samples chosen and ordered by `rows`; nothing is read."""
        chosen = self._checked(np.asarray(rows, np.int64))
        taken = copy.copy(self)
        taken._rows = chosen if self._rows is None else self._rows[chosen]
        taken.shape = (len(chosen), *self.shape[1:])
        return taken

    def _checked(self, positions: np.ndarray) -> np.ndarray:
        outside = (positions < -len(self)) | (positions >= len(self))
        if outside.any():
            raise IndexError(
                f"sample {int(positions[np.argmax(outside)])} does not exist: there are {len(self)}"
            )
        return np.where(positions < 0, positions + len(self), positions)

    def _read(self, positions: np.ndarray) -> np.ndarray:
        stored = positions if self._rows is None else self._rows[positions]
        out = np.empty((len(stored), *self.shape[1:]), self.dtype)
        if not out.size:
            return out
        if self._lease is None:
            self._make_here()
        target = out.reshape(-1).view(np.uint8).data
        order = np.argsort(stored, kind="stable")
        ordered = stored[order]
        numbers = np.searchsorted(self._ends, ordered, side="right")
        # A run lies side by side in one file and in the result: it is one read.
        breaks = (np.diff(ordered) != 1) | (np.diff(order) != 1) | (np.diff(numbers) != 0)
        starts = np.concatenate([[0], np.flatnonzero(breaks) + 1])
        ends = np.append(starts[1:], len(ordered))
        opened, file = -1, -1
        try:
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                number = int(numbers[start])
                if number != opened:
                    file, opened = self._opened(number, file), number
                row = int(ordered[start]) - (int(self._ends[number - 1]) if number else 0)
                first = int(order[start]) * self._row_bytes
                part = target[first : first + (end - start) * self._row_bytes]
                self._fill(file, part, self._offsets[number] + row * self._row_bytes, number)
        finally:
            if file >= 0:
                os.close(file)
        return out

    def _opened(self, number: int, previous: int) -> int:
        if previous >= 0:
            os.close(previous)
        try:
            return os.open(self._files[number], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CorruptFileError(_GONE.format(self._files[number])) from error

    def _fill(self, file: int, part: memoryview, offset: int, number: int) -> None:
        while part:
            count = os.preadv(file, [part], offset)
            if count == 0:
                raise CorruptFileError(_GONE.format(self._files[number]))
            part, offset = part[count:], offset + count


_GONE = (
    "the samples in {!r} are gone or cut short: run the job again, which makes cached ones again "
    "from the dataset."
)
