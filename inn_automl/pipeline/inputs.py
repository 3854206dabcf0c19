"""What a bundle says of the input of its model, from the dataset that it was trained on."""

from __future__ import annotations

import numpy as np

from inn_automl.data import Dataset
from inn_automl.data.preprocessing import Preprocessing as Geometry
from inn_automl.export.records import AudioInput, ImageInput, Preprocessing

_NUM_LOOKED_AT = 64
_LEAST_BYTE_RANGE = 128
"""Arrays of bytes whose samples all stay below this hold other things than the levels of images:
levels from 0 to 16, say, or black and white as 0 and 1."""


def described_preprocessing(dataset: Dataset) -> Preprocessing:
    """How files become samples of a dataset."""
    return Preprocessing(
        mean=tuple(dataset.mean.tolist()),
        std=tuple(dataset.std.tolist()),
        image=_image(dataset),
        audio=_audio(dataset),
    )


def _image(dataset: Dataset) -> ImageInput | None:
    """None for what is no image, or an array whose values are no levels of images."""
    channels = dataset.input_shape[0]
    how = dataset.preprocessing
    if how is None or dataset.task == "super-resolution" or channels not in (1, 3):
        return None
    levels = dataset.x[dataset.train[:_NUM_LOOKED_AT]]
    is_deep = levels.dtype != np.uint8
    # What was resized came from files; other values are looked at.
    was_resized = how != Geometry.identity(how.input_size)
    if not was_resized and not (_are_deep(levels) if is_deep else _are_bytes(levels)):
        return None
    if is_deep and channels != 1:
        return None
    return ImageInput(
        channels=1 if channels == 1 else 3,
        dtype="float32" if is_deep else "uint8",
        input_size=how.input_size,
        stored_size=how.stored_size,
        resize=how.resize,
        crop_fraction=how.crop_fraction,
        interpolation=how.interpolation,
        fill=how.fill,
    )


def _are_bytes(levels: np.ndarray) -> bool:
    return bool(levels.max() >= _LEAST_BYTE_RANGE)


def _are_deep(levels: np.ndarray) -> bool:
    """True for the levels of 16 bits."""
    is_whole = bool((levels == np.round(levels)).all())
    return is_whole and levels.min() >= 0 and 256 <= levels.max() <= 65535


def _audio(dataset: Dataset) -> AudioInput | None:
    """None for what is no audio."""
    if dataset.kind != "signal" or dataset.sample_rate_hz is None:
        return None
    channels, length = dataset.input_shape
    return AudioInput(
        sample_rate_hz=dataset.sample_rate_hz,
        channels=channels,
        window_samples=length,
        hop_samples=max(1, length // 2),
    )
