"""Arrays of images, brought to another size."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.cache.build import DIGEST_BYTES, Produced, cached_samples
from inn_automl.data.preprocessing import Preprocessing
from inn_automl.data.samples import RawSamples, blocks, shape_text


def resized_arrays(
    samples: RawSamples, preprocessing: Preprocessing | None, where: str
) -> RawSamples:
    """The samples, resized into the cache where the preprocessing asks for another size or other
    channels than the arrays have.

    Raises:
        DatasetFormatError: targets are images, which must keep their size; or channels that cannot
            be turned into those that are asked for.
    """
    x = samples.x
    if preprocessing is None or x.ndim != 4:
        return samples
    channels = preprocessing.channels or x.shape[1]
    stored = (channels, *preprocessing.stored_size)
    if tuple(x.shape[1:]) == stored and preprocessing.input_size == preprocessing.stored_size:
        return replace(samples, preprocessing=preprocessing)
    if samples.targets is not None and samples.targets.ndim == 4:
        raise DatasetFormatError(
            f"the images of {where} are {shape_text(x.shape[1:])} and their targets are images, "
            "too: their size cannot be changed; leave the input size out."
        )
    if channels != x.shape[1] and x.shape[1] != 1:
        raise DatasetFormatError(
            f"the images of {where} have {x.shape[1]} channels, but the network takes {channels}: "
            f"store {channels}, or one that is repeated."
        )
    digest = hashlib.sha256()
    for block in blocks(x):
        digest.update(np.ascontiguousarray(x[block]).data)

    def produce(position: int) -> Produced:
        sample = x[position]
        name = hashlib.blake2b(np.ascontiguousarray(sample).data, digest_size=DIGEST_BYTES)
        planes = np.stack([_plane(plane, preprocessing) for plane in sample])
        if len(planes) != channels:
            planes = np.repeat(planes, channels, axis=0)
        return Produced(preprocessing.framed(planes), name.digest())

    identity = {
        "array": [digest.hexdigest(), list(x.shape), str(x.dtype)],
        "geometry": preprocessing.metadata(),
    }
    cached = cached_samples(identity, (len(x), *stored), x.dtype, produce, what=where)
    height, width = preprocessing.input_size
    note = f"All images were resized from {x.shape[2]} x {x.shape[3]} to {height} x {width}."
    return replace(
        samples,
        x=cached.x,
        moments=cached.moments,
        content_hash=cached.content_hash,
        preprocessing=preprocessing,
        notes=(*samples.notes, note),
    )


def _plane(plane: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    from PIL import Image

    height, width = preprocessing.scaled_size((plane.shape[0], plane.shape[1]))
    image = Image.fromarray(plane)
    method = Image.Resampling[preprocessing.interpolation.upper()]
    return np.asarray(image.resize((width, height), method))
