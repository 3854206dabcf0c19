"""Recordings of any length as windows, read piece by piece so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.export.preparation import windows_of
from inn_automl.export.records import AudioInput

_BLOCK_SECONDS = 30


def read_windows(path: Path, audio: AudioInput) -> Iterator[np.ndarray]:
    """The windows (channels, window_samples) of a recording at the model's rate.

    Raises:
        DatasetFormatError: the file cannot be read, is empty, or has fewer channels than the model
            takes.
    """
    held, first, start = np.zeros((0, audio.channels), np.float32), 0, 0
    for block in _resampled(path, audio):
        held = np.concatenate([held, block])
        while start + audio.window_samples <= first + len(held):
            yield held[start - first :][: audio.window_samples].T
            start += audio.hop_samples
        # The last window ends with the recording and may begin right after the one before.
        passed = max(0, start - audio.hop_samples - first)
        held, first = held[passed:], first + passed
    length = first + len(held)
    if length == 0:
        raise DatasetFormatError(f"{str(path)!r} holds no samples: leave it out.")
    if start == 0:
        yield windows_of(held, audio)[0]
    elif length > start - audio.hop_samples + audio.window_samples:
        yield held[-audio.window_samples :].T


def _resampled(path: Path, audio: AudioInput) -> Iterator[np.ndarray]:
    """Blocks (length, channels) of a recording at the model's rate."""
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as sound:
            if audio.channels not in (1, sound.channels):
                raise DatasetFormatError(
                    f"{str(path)!r} has {sound.channels} channel(s) and the model takes "
                    f"{audio.channels}: convert it."
                )
            stream = soxr.ResampleStream(
                sound.samplerate, audio.sample_rate_hz, audio.channels, dtype="float32"
            )
            blocks = sound.blocks(
                _BLOCK_SECONDS * sound.samplerate, dtype="float32", always_2d=True
            )
            for block in blocks:
                mixed = block if audio.channels > 1 else block.mean(axis=1, keepdims=True)
                is_last = sound.tell() == sound.frames
                if sound.samplerate == audio.sample_rate_hz:
                    yield mixed
                else:
                    yield stream.resample_chunk(np.ascontiguousarray(mixed), last=is_last)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        reason = str(error).split(": ", 1)[-1].rstrip(".")
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read as a recording ({reason}): replace or remove it."
        ) from None
