"""Six kinds of shapes drawn over photographs: JPEGs of many sizes, in folders of classes.

The photographs lie inside scikit-image, scikit-learn and matplotlib. Those of the test split are
others than those of training: a network that learned the backgrounds fails on it.

    python -m benchmarks.shapes FOLDER
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.report import SCRATCH

CLASSES = ("circle", "cross", "ring", "square", "star", "triangle")
SPLITS = ("train", "test")
PHOTOGRAPHS = {
    "train": (
        "sklearn/datasets/images/china.jpg",
        "skimage/data/astronaut.png",
        "skimage/data/brick.png",
        "skimage/data/camera.png",
        "skimage/data/coffee.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/motorcycle_left.png",
        "skimage/data/grass.png",
    ),
    "test": (
        "sklearn/datasets/images/flower.jpg",
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
        "skimage/data/chelsea.png",
        "skimage/data/coins.png",
        "skimage/data/gravel.png",
        "skimage/data/moon.png",
        "skimage/data/rocket.jpg",
    ),
}
NUM_SAMPLES = {"train": 2000, "test": 1000}
SIDES = (240, 420)
"""The shortest and the longest side of an image, in pixels."""
_SHARE_OF_SIDE = (0.3, 0.65)
"""Diameter of a shape, as a share of the shorter side."""
_OPACITY = (0.6, 1.0)
_HOLE = 0.55
"""Diameter of a ring's inside, as a share of its outside."""
_SHARE_GREY = 0.1
_SUPERSAMPLING = 3


def make_shapes(folder: Path | None = None, seed: int = 0) -> Path:
    """Writes the dataset unless an earlier call has, and gives its folder.

    Args:
        folder: where to; None for a folder below `build/benchmarks`. It appears as a whole.
        seed: of everything that is drawn. Tune on one, report on another.
    """
    folder = folder or SCRATCH / f"shapes-seed{seed}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for split in SPLITS:
            for name in CLASSES:
                (scratch / split / name).mkdir(parents=True)
            for index in range(NUM_SAMPLES[split]):
                image, label, quality = draw_sample(split, index, seed)
                path = scratch / split / CLASSES[label] / f"{index:05d}.jpg"
                image.save(path, quality=quality)
        scratch.chmod(0o755)
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def draw_sample(split: str, index: int, seed: int = 0) -> tuple[Image.Image, int, int]:
    """One image, its class, and the JPEG quality to store it in; determined by the arguments."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    label = index % len(CLASSES)
    width, height = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, size=2))
    image = _crop(split, width, height, rng)
    short = min(width, height)
    diameter = short * rng.uniform(*_SHARE_OF_SIDE)
    # Inside of the square in the middle, which crops keep.
    reach = (short - diameter) / 2
    centre = np.array([width, height]) / 2 + rng.uniform(-reach, reach, size=2)
    mask = _mask(CLASSES[label], (width, height), centre, diameter, rng)
    alpha = (np.asarray(mask, np.float32) / 255 * rng.uniform(*_OPACITY))[..., None]
    filled = _filling(split, width, height, rng)
    pixels = np.asarray(image, np.float32) * (1 - alpha) + filled * alpha
    pixels += rng.normal(0, rng.uniform(0, 8), size=pixels.shape)
    drawn = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < _SHARE_GREY:
        drawn = drawn.convert("L")
    return drawn, label, int(rng.integers(70, 96))


@cache
def _photograph(name: str) -> Image.Image:
    package, _, within = name.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the photograph {name} is missing: pip install 'inn-automl[dev]'.")
    with Image.open(Path(spec.submodule_search_locations[0]) / within) as image:
        return image.convert("RGB")


def _crop(split: str, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A random part of a random photograph, at the asked size and in its own light."""
    photo = _photograph(PHOTOGRAPHS[split][rng.integers(len(PHOTOGRAPHS[split]))])
    largest = min(photo.width / width, photo.height / height)
    scale = largest * rng.uniform(0.5, 1.0)
    taken = (width * scale, height * scale)
    left = rng.uniform(0, photo.width - taken[0])
    top = rng.uniform(0, photo.height - taken[1])
    box = (left, top, left + taken[0], top + taken[1])
    image = photo.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain, lift = rng.uniform(0.6, 1.3), rng.uniform(-30, 30)
    return image.point(lambda value: value * gain + lift)


def _filling(split: str, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """What a shape is filled with, (height, width, 3): one colour, or a part of a photograph."""
    if rng.random() < 0.4:
        return np.asarray(_crop(split, width, height, rng), np.float32)
    colour = rng.uniform(0, 255, size=3).astype(np.float32)
    return np.broadcast_to(colour, (height, width, 3))


def _mask(
    name: str,
    size: tuple[int, int],
    centre: np.ndarray,
    diameter: float,
    rng: np.random.Generator,
) -> Image.Image:
    """The shape in white on black, turned at random and up to a quarter narrower than long."""
    turn, narrower = rng.uniform(0, 2 * math.pi), rng.uniform(0.75, 1.0)
    turning = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    points = (_outline(name) * (1.0, narrower) * diameter / 2) @ turning
    width, height = size
    mask = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    for share, value in ((1.0, 255), (_HOLE, 0)) if name == "ring" else ((1.0, 255),):
        corners = (share * points + centre) * _SUPERSAMPLING
        ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners.tolist()], fill=value)
    return mask.resize(size, Image.Resampling.BOX)


def _outline(name: str) -> np.ndarray:
    """Corners (n, 2) of a shape inside of the unit circle."""
    if name == "cross":
        arm = np.array([(1 / 3, 1 / 3), (1 / 3, 1), (-1 / 3, 1)])
        quarter = np.array([(0, 1), (-1, 0)])
        corners = [arm @ np.linalg.matrix_power(quarter, turns) for turns in range(4)]
        return np.concatenate(corners) / math.hypot(1 / 3, 1)
    num_corners = {"circle": 64, "ring": 64, "square": 4, "star": 10, "triangle": 3}[name]
    angles = 2 * math.pi * np.arange(num_corners) / num_corners
    radii = np.where(np.arange(num_corners) % 2, 0.45, 1.0) if name == "star" else 1.0
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shapes", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the images go; it must not exist")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    options = parser.parse_args(arguments)
    if options.folder.exists():
        parser.error(f"{options.folder} exists: name a folder that does not.")
    print(make_shapes(options.folder, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
