"""Small pictures of samples."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from inn_automl.data import Dataset

MAX_THUMBNAILS = 8
SIDE_PIXELS = 96
PLOT_PIXELS = (192, 96)
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c")


def thumbnails(dataset: Dataset) -> Iterator[bytes]:
    """PNG files of up to 8 training samples, of as many classes as there are; of pairs, the
    targets.
    """
    labels = dataset.y[dataset.train] if dataset.classes else np.zeros(len(dataset.train))
    first = np.unique(labels, return_index=True)[1]
    others = np.setdiff1d(np.arange(min(len(labels), MAX_THUMBNAILS)), first)
    for position in np.concatenate([first, others])[:MAX_THUMBNAILS]:
        shown = dataset.y if dataset.task == "super-resolution" else dataset.x
        sample = shown[dataset.train[position]]
        picture = _image(sample) if dataset.kind == "image" else _plot(sample)
        file = io.BytesIO()
        picture.save(file, "PNG")
        yield file.getvalue()


def _image(sample: np.ndarray) -> Image.Image:
    """C x H x W; the first channel alone where there are neither one nor three."""
    height, width = sample.shape[1:]
    step = max(1, height // (4 * SIDE_PIXELS), width // (4 * SIDE_PIXELS))
    pixels = sample[:, ::step, ::step]
    pixels = pixels if len(pixels) == 3 else pixels[:1]
    # digits go to 16, floats anywhere
    if not (sample.dtype == np.uint8 and sample.max(initial=0) > 16):
        pixels = _to_unit(pixels) * 255
    array = pixels.astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    scale = SIDE_PIXELS / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize(
        (size[0], size[1]), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    )


def _plot(sample: np.ndarray) -> Image.Image:
    """C x L: a line for each of the first channels."""
    width, height = PLOT_PIXELS
    step = max(1, sample.shape[1] // (4 * width))
    values = _to_unit(sample[: len(COLOURS), ::step])
    picture = Image.new("RGB", PLOT_PIXELS, "white")
    draw = ImageDraw.Draw(picture)
    x = np.linspace(2, width - 3, values.shape[1])
    for channel, colour in zip(values, COLOURS, strict=False):
        y = height - 3 - channel * (height - 6)
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        if len(points) > 1:
            draw.line(points, fill=colour)
        else:
            draw.ellipse(
                (points[0][0] - 1, points[0][1] - 1, points[0][0] + 1, points[0][1] + 1),
                fill=colour,
            )
    return picture


def _to_unit(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (values.astype(np.float64) - low) / (high - low or 1.0)
