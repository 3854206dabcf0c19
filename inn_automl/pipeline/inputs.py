"""What a bundle says of the input of its model, from the dataset that it was trained on."""

from __future__ import annotations

import numpy as np

from inn_automl.data import Dataset
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
    if levels.dtype == np.uint8:
        if levels.max() < _LEAST_BYTE_RANGE:
            return None
    elif channels != 1 or levels.max() < 256 or (levels != np.round(levels)).any():
        return None  # not grey of 16 bits
    return ImageInput(
        channels=1 if channels == 1 else 3,
        dtype="uint8" if levels.dtype == np.uint8 else "float32",
        input_size=how.input_size,
        stored_size=how.stored_size,
        resize=how.resize,
        crop_fraction=how.crop_fraction,
        interpolation=how.interpolation,
        fill=how.fill,
    )


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
