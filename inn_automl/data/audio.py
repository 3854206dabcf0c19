"""Recordings to windows of one length and rate, in one channel.

libsndfile reads WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and more; soxr resamples.
"""

from __future__ import annotations

import contextlib
import hashlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetError, DatasetFormatError
from inn_automl.data.cache import Produced, cached_samples, produced_in_memory
from inn_automl.data.cache.build import DIGEST_BYTES
from inn_automl.data.catalog import Catalog
from inn_automl.data.faults import without_broken
from inn_automl.data.files import DatasetFile
from inn_automl.data.images import num_threads
from inn_automl.data.samples import RawSamples, plain_values

if TYPE_CHECKING:
    import soundfile

HIGHEST_CHOSEN_RATE_HZ = 16_000
"""Where the user names no rate: speech and most sounds of machines and animals lie below half of
it, and every doubling costs twice the time.
"""
UNKNOWN_RIFF_BYTES = 0x7FFF0000
"""Programs that write to a pipe cannot know the size; they put a value of at least this."""
RIFF_SLACK_BYTES = 8
"""Some writers count the RIFF header itself."""
MEMORY_BYTES = 2**28
"""Recordings are kept in memory up to this many bytes; beyond, they are read from the cache."""


@dataclass(frozen=True)
class RecordingHeader:
    """What a recording says of itself."""

    num_frames: int
    num_channels: int
    rate_hz: int

    def length_at(self, rate_hz: int) -> int:
        """Samples at another rate."""
        return max(1, round(self.num_frames * rate_hz / self.rate_hz))


@dataclass(frozen=True)
class Windows:
    """How recordings are cut: every recording into as many windows as it fills at least by half,
    and into one if it is shorter.
    """

    rate_hz: int
    length: int
    """Samples of a window."""

    def count(self, header: RecordingHeader) -> int:
        """Windows of a recording."""
        return max(1, (2 * header.length_at(self.rate_hz) + self.length) // (2 * self.length))

    @classmethod
    def chosen(cls, headers: Sequence[RecordingHeader], options: DataOptions) -> Windows:
        """The options' windows, or those of the most common rate (16,000 Hz at most) and the
        median length.
        """
        counts = Counter(header.rate_hz for header in headers)
        common = max(counts, key=lambda rate: (counts[rate], -rate))
        rate = options.sample_rate_hz or min(common, HIGHEST_CHOSEN_RATE_HZ)
        if options.window_seconds is not None:
            return cls(rate, max(1, round(options.window_seconds * rate)))
        return cls(rate, statistics.median_low(header.length_at(rate) for header in headers))


def load_recordings(
    catalog: Catalog,
    options: DataOptions,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[RawSamples, Catalog, dict[int, str]]:
    """Decodes recordings to N x 1 x L float32, in units of full scale (-1 to 1 for integer
    formats).

    They are mixed down to one channel, resampled to one rate, and cut into windows. What a window
    lacks at its end is filled with zeros. Windows of one recording are kept in one split.

    Args:
        catalog: one entry a recording.
        options: rate, length of windows, share that may be broken.
        on_progress: called with windows decoded and in all, where they go into the cache.

    Returns:
        Samples without labels, the catalog with one entry a window, and faults by window.

    Raises:
        DatasetFormatError: damaged or empty files, or values that are not finite; more of them
            than the options allow.
    """
    headers, faults = _headers(catalog.entries, catalog.where)
    texts = [*catalog.faults, *faults.values()]
    total = len(catalog) + len(catalog.faults)
    without_broken(texts, total, options.skip_broken, catalog.where)
    catalog = catalog.keeping(np.array(list(headers), np.int64), texts)
    found = list(headers.values())
    windows = Windows.chosen(found, options)
    counts = np.array([windows.count(header) for header in found])
    cut = _by_window(catalog, counts)
    starts = np.concatenate([np.arange(count) for count in counts])
    produce = _producer(cut, windows, starts)
    shape = (len(cut), 1, windows.length)
    if 4 * int(np.prod(shape, dtype=object)) <= MEMORY_BYTES:
        x, digests, broken = produced_in_memory(produce, shape, np.dtype(np.float32))
        samples = RawSamples(x=x, labels=None, given={}, digests=digests)
    else:
        samples, broken = _cached(cut, windows, starts, produce, shape, on_progress)
    notes = _notes(found, windows, counts)
    return replace(samples, notes=notes, sample_rate_hz=windows.rate_hz), cut, broken


def _cached(
    cut: Catalog,
    windows: Windows,
    starts: np.ndarray,
    produce: Callable[[int], Produced],
    shape: tuple[int, ...],
    on_progress: Callable[[int, int], None] | None,
) -> tuple[RawSamples, dict[int, str]]:
    import soundfile
    import soxr

    identity: dict[str, Any] = {
        "entries": [entry.content.identity() for entry in cut.entries],
        "windows": [windows.rate_hz, windows.length, starts.tolist()],
        "libraries": [soundfile.__libsndfile_version__, soxr.__libsoxr_version__],
    }
    made = cached_samples(
        identity, shape, np.float32, produce, what=cut.where, on_progress=on_progress
    )
    samples = RawSamples(
        x=made.x,
        labels=None,
        given={},
        moments=made.moments,
        digests=made.digests,
        content_hash=made.content_hash,
    )
    return samples, dict(made.faults)


def _by_window(catalog: Catalog, counts: np.ndarray) -> Catalog:
    """The catalog with an entry for each window of its recordings."""
    if (counts == 1).all():
        return catalog
    recording = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    given = {
        split: np.concatenate([np.arange(first[i], first[i] + counts[i]) for i in indices])
        if len(indices)
        else np.zeros(0, np.int64)
        for split, indices in catalog.given.items()
    }
    groups = catalog.groups
    if groups is None:
        groups = np.array([entry.path for entry in catalog.entries])

    def repeated(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[recording]

    return replace(
        catalog,
        entries=[catalog.entries[i] for i in recording.tolist()],
        given=given,
        labels=repeated(catalog.labels),
        targets=repeated(catalog.targets),
        groups=groups[recording],
        weights=repeated(catalog.weights),
    )


def _producer(cut: Catalog, windows: Windows, starts: np.ndarray) -> Callable[[int], Produced]:
    def produce(position: int) -> Produced:
        entry = cut.entries[position]
        values = _decode(entry, windows, int(starts[position]), cut.where)
        sample = np.zeros((1, windows.length), np.float32)
        kept = values[: windows.length]
        sample[0, : len(kept)] = kept
        return Produced(sample, hashlib.sha256(sample.data).digest()[:DIGEST_BYTES])

    return produce


def _decode(entry: DatasetFile, windows: Windows, number: int, where: str) -> np.ndarray:
    """(L,) or fewer samples of a window."""
    import soxr

    with _opened(entry, where) as sound:
        ratio = sound.samplerate / windows.rate_hz
        start = round(number * windows.length * ratio)
        sound.seek(start)
        # One frame more than the window needs, so that rounding leaves none of it out.
        frames = sound.read(int(np.ceil(windows.length * ratio)) + 1, "float32", always_2d=True)
        rate_hz = sound.samplerate
    mixed = plain_values(frames, f"{entry.path!r} in {where}").mean(1, dtype=np.float32)
    if rate_hz == windows.rate_hz or not len(mixed):
        return mixed
    resampled: np.ndarray = soxr.resample(mixed, rate_hz, windows.rate_hz)
    return resampled


def _headers(
    entries: Sequence[DatasetFile], where: str
) -> tuple[dict[int, RecordingHeader], dict[int, str]]:
    """Headers, and the faults of recordings that have none, by position."""

    def read(entry: DatasetFile) -> RecordingHeader | str:
        try:
            return _header(entry, where)
        except DatasetError as error:
            return str(error)

    with ThreadPoolExecutor(num_threads()) as pool:
        found = list(enumerate(pool.map(read, entries)))
    headers = {i: one for i, one in found if isinstance(one, RecordingHeader)}
    return headers, {i: one for i, one in found if isinstance(one, str)}


def _header(entry: DatasetFile, where: str) -> RecordingHeader:
    with _opened(entry, where) as sound:
        header = RecordingHeader(sound.frames, sound.channels, sound.samplerate)
    if header.num_frames <= 0:
        raise _damaged(entry, where, "it holds no samples")
    # libsndfile reads a truncated file as a shorter one.
    with entry.content.open() as stream:
        start = stream.read(8)
        num_bytes = stream.seek(0, 2)
    announced = int.from_bytes(start[4:8], "little")
    if start[:4] == b"RIFF" and num_bytes + RIFF_SLACK_BYTES < announced + 8 < UNKNOWN_RIFF_BYTES:
        raise _damaged(entry, where, f"it is cut short: {num_bytes} of {announced + 8} bytes")
    return header


@contextlib.contextmanager
def _opened(entry: DatasetFile, where: str) -> Iterator[soundfile.SoundFile]:
    import soundfile

    with entry.content.open() as stream:
        try:
            with soundfile.SoundFile(stream) as sound:
                yield sound
        except DatasetError:
            raise
        except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
            raise _damaged(entry, where, _reason(error)) from None


def _damaged(entry: DatasetFile, where: str, reason: str) -> DatasetFormatError:
    return DatasetFormatError(
        f"{entry.path!r} in {where} cannot be read as audio ({reason}): replace or remove it."
    )


def _reason(error: Exception) -> str:
    """The message of libsndfile, without the address of the stream that it names."""
    return str(error).split(": ", 1)[-1].rstrip(".")


def _notes(
    headers: Sequence[RecordingHeader], windows: Windows, counts: np.ndarray
) -> tuple[str, ...]:
    total = len(headers)
    notes = []
    num_resampled = sum(header.rate_hz != windows.rate_hz for header in headers)
    if num_resampled:
        notes.append(
            f"{num_resampled} of {total} recordings were resampled to {windows.rate_hz} Hz."
        )
    num_mixed = sum(header.num_channels > 1 for header in headers)
    if num_mixed:
        notes.append(f"{num_mixed} of {total} recordings were mixed down to one channel.")
    seconds = f"{windows.length / windows.rate_hz:.4g} s"
    if (counts > 1).any():
        notes.append(
            f"{int((counts > 1).sum())} of {total} recordings were cut into {int(counts.sum())} "
            f"windows of {seconds} in all; those of one recording are kept in one split."
        )
    lengths = np.array([header.length_at(windows.rate_hz) for header in headers])
    num_changed = int(np.sum((counts == 1) & (lengths != windows.length)))
    if num_changed:
        notes.append(
            f"{num_changed} of {total} recordings were cut or padded with zeros at their end to "
            f"{windows.length} samples ({seconds})."
        )
    return tuple(notes)
