"""WAV files to one array."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.files import DatasetFile
from inn_automl.data.samples import check_size, plain_values

FORMATS = frozenset({"WAV", "WAVEX", "RF64"})
UNKNOWN_RIFF_BYTES = 0x7FFF0000
"""Programs that write to a pipe cannot know the size; they put a value of at least this."""
RIFF_SLACK_BYTES = 8
"""Some writers count the RIFF header itself."""


@dataclass(frozen=True)
class _Header:
    num_frames: int
    num_channels: int
    rate_hz: int


def read_wavs(
    entries: Sequence[DatasetFile], where: str
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Decodes WAV files to N x C x L float32, in units of full scale (-1 to 1 for integer
    formats).

    Files of another length than the median one (which is the most common one wherever most files
    have the same length) are cut at their end, or padded there with zeros. Sample rates and channel
    counts must agree: nothing is resampled or mixed.

    Args:
        entries: WAV files.
        where: name of the dataset in messages.

    Returns:
        The array, the sample rate in Hz, and notes on what was changed.

    Raises:
        DatasetFormatError: a damaged or empty file, different sample rates or channel counts, NaN
            or infinite values, or more than the size limit.
    """
    headers = [_header(entry, where) for entry in entries]
    first = headers[0]
    for entry, header in zip(entries, headers, strict=True):
        if header.rate_hz != first.rate_hz:
            raise DatasetFormatError(
                f"{entry.path!r} in {where} has a sample rate of {header.rate_hz} Hz but "
                f"{entries[0].path!r} of "
                f"{first.rate_hz} Hz: resample them to one rate."
            )
        if header.num_channels != first.num_channels:
            raise DatasetFormatError(
                f"{entry.path!r} in {where} has {header.num_channels} channel(s) but "
                f"{entries[0].path!r} has "
                f"{first.num_channels}: convert all to the same number."
            )
    length = statistics.median_low(header.num_frames for header in headers)
    shape = (len(entries), first.num_channels, length)
    check_size(int(np.prod(shape, dtype=object)) * 4, where)
    x = np.zeros(shape, np.float32)
    for i, entry in enumerate(entries):
        signal = _decode(entry, length, where)
        x[i, :, : signal.shape[1]] = signal

    num_changed = sum(header.num_frames != length for header in headers)
    notes = (
        f"{num_changed} of {len(headers)} WAV files were cut or padded with zeros at their end to "
        f"{length} samples, "
        "the median length.",
    )
    return x, first.rate_hz, notes if num_changed else ()


def _header(entry: DatasetFile, where: str) -> _Header:
    import soundfile

    content = entry.read()
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            file_format, num_frames = sound.format, sound.frames
            header = _Header(num_frames, sound.channels, sound.samplerate)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise _damaged(entry, where, _reason(error)) from None
    if file_format not in FORMATS:
        raise _damaged(entry, where, f"its content is {file_format}")
    if num_frames == 0:
        raise _damaged(entry, where, "it holds no samples")
    # libsndfile reads a truncated file as a shorter one.
    announced = int.from_bytes(content[4:8], "little")
    if (
        content[:4] == b"RIFF"
        and len(content) + RIFF_SLACK_BYTES < announced + 8 < UNKNOWN_RIFF_BYTES
    ):
        raise _damaged(entry, where, f"it is cut short: {len(content)} of {announced + 8} bytes")
    return header


def _decode(entry: DatasetFile, length: int, where: str) -> np.ndarray:
    """The first `length` samples or fewer: (C, L)."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(entry.read())) as sound:
            signal = sound.read(length, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise _damaged(entry, where, _reason(error)) from None
    return plain_values(signal.T, f"{entry.path!r} in {where}")


def _damaged(entry: DatasetFile, where: str, reason: str) -> DatasetFormatError:
    return DatasetFormatError(
        f"{entry.path!r} in {where} cannot be read as a WAV file ({reason}): replace or remove it."
    )


def _reason(error: Exception) -> str:
    """The message of libsndfile, without the address of the buffer that it names."""
    return str(error).split(": ", 1)[-1].rstrip(".")
