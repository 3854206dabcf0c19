"""What becomes of decoded files before a model, in NumPy: as `model_any_size.onnx` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inn_automl.data.preprocessing import Preprocessing as Geometry

if TYPE_CHECKING:
    from inn_automl.export.records import AudioInput, ImageInput


def geometry(image: ImageInput) -> Geometry:
    """The geometry that a bundle describes, as datasets are read with it."""
    return Geometry(
        input_size=image.input_size,
        stored_size=image.stored_size,
        resize=image.resize,
        crop_fraction=image.crop_fraction,
        interpolation=image.interpolation,
        channels=image.channels,
        fill=image.fill,
    )


def window_starts(length: int, audio: AudioInput) -> np.ndarray:
    """First samples of the windows of a recording: every hop, and the last one ends with it."""
    spare = max(0, length - audio.window_samples)
    count = -(-spare // audio.hop_samples) + 1
    starts: np.ndarray = np.minimum(np.arange(count) * audio.hop_samples, spare)
    return starts


def windows_of(recording: np.ndarray, audio: AudioInput) -> np.ndarray:
    """Cuts a recording into windows.

    Args:
        recording: (length, channels), float32; mixed down where the model takes one channel.

    Returns:
        (windows, channels, window_samples); a recording shorter than a window is padded with
        zeros at its end.
    """
    if audio.channels == 1 and recording.shape[1] != 1:
        recording = recording.mean(axis=1, keepdims=True, dtype=np.float32)
    lacking = max(0, audio.window_samples - len(recording))
    padded = np.pad(recording, ((0, lacking), (0, 0)))
    found = [
        padded[start : start + audio.window_samples].T
        for start in window_starts(len(recording), audio)
    ]
    return np.ascontiguousarray(np.stack(found), dtype=np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, classes) -> probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found
