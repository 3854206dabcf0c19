"""What the arms are compared on: datasets that come in packages, and a harder one that is made of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_images
from torch import nn

from benchmarks.report import SCRATCH
from inn_automl.data import Dataset, load_dataset
from inn_automl.models import build
from inn_automl.models.resnet import resnet18_cifar

COLOUR = "colour"
"""Handwritten digits over photographs, as in MNIST-M."""
_SIZE = 32


NAMED_NETWORKS: dict[str, tuple[str, Callable[[tuple[int, ...], int], nn.Module]]] = {
    "resnet20": (
        "resnet",
        lambda shape, num_classes: build("resnet", shape, num_classes, depth=20),
    ),
    "resnet18": (
        "resnet",
        lambda shape, num_classes: resnet18_cifar(num_classes, in_channels=shape[0]),
    ),
}
"""Networks besides the default ones of families: the family of each, and how it is built."""


@dataclass(frozen=True)
class Case:
    """A dataset and a network, with the epochs in which a US-Net of it comes to rest on the data.

    Attributes:
        family: whose default network it is; or one of `NAMED_NETWORKS`.
    """

    dataset: str
    family: str
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.dataset}, {self.family}"

    @property
    def trained_as(self) -> str:
        """The family whose recipe the network is trained by."""
        return NAMED_NETWORKS[self.family][0] if self.family in NAMED_NETWORKS else self.family

    def build(self, dataset: Dataset) -> nn.Module:
        """The network, freshly initialized from torch's global random state."""
        if self.family in NAMED_NETWORKS:
            return NAMED_NETWORKS[self.family][1](dataset.input_shape, dataset.num_classes)
        return build(self.family, dataset.input_shape, dataset.num_classes)


TASKS = (
    Case("mnist1d", "signal", 20),
    Case("mnist5k", "convnet", 8),
    Case("digits", "resnet", 16),
    Case("digits", "mobilenet", 24),
    Case(COLOUR, "convnet", 12),
)
LARGE_TASKS = (Case(COLOUR, "resnet20", 16), Case(COLOUR, "resnet18", 16))
"""For a GPU; a CPU takes half an hour for a US-Net of the first, and a day for the second."""


def find_task(dataset: str, family: str) -> Case:
    """The task with the settled number of epochs, where there is one; else 12."""
    known = {task.name: task for task in (*TASKS, *LARGE_TASKS)}
    wanted = Case(dataset, family, 12)
    return known.get(wanted.name, wanted)


def load_task(dataset: str) -> Dataset:
    """A built-in dataset, `COLOUR`, or what a path holds."""
    if dataset != COLOUR:
        return load_dataset(dataset)
    path = SCRATCH / "quality" / f"{COLOUR}.npz"
    if not path.exists():
        _write_colour(path)
    return load_dataset(str(path))


def _write_colour(path: Path) -> None:
    """5,000 images (3, 32, 32): MNIST digits whose strokes invert a random part of one of two
    photographs.

    Y. Ganin and V. Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015,
    section 4.1, who took photographs of another collection.
    """
    digits, rng = load_dataset("mnist5k"), np.random.default_rng(0)
    photos = load_sample_images().images
    x = np.empty((len(digits.x), 3, _SIZE, _SIZE), np.uint8)
    for i, image in enumerate(digits.x[:, 0].astype(int)):
        photo = photos[rng.integers(len(photos))]
        top, left = (int(rng.integers(side - _SIZE)) for side in photo.shape[:2])
        x[i] = photo[top : top + _SIZE, left : left + _SIZE].transpose(2, 0, 1)
        dy, dx = rng.integers(_SIZE - image.shape[0] + 1, size=2)
        stroke = x[i][:, dy : dy + image.shape[0], dx : dx + image.shape[1]]
        stroke[:] = np.abs(stroke.astype(int) - image)
    path.parent.mkdir(parents=True, exist_ok=True)
    splits = {
        f"{letter}_{name}": data[getattr(digits, split)]
        for name, split in (("train", "train"), ("val", "validation"), ("test", "test"))
        for letter, data in (("x", x), ("y", digits.y))
    }
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **splits)
    temporary.replace(path)
