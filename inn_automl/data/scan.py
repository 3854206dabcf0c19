"""What a dataset is, found out without decoding its samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from inn_automl.core.data_options import DataOptions
from inn_automl.core.metric import TaskKind
from inn_automl.data.catalog import Catalog
from inn_automl.data.faults import without_broken
from inn_automl.data.headers import headers_of
from inn_automl.data.images import ImageHeader, common_size
from inn_automl.data.preprocessing import Preprocessing
from inn_automl.data.samples import ordered
from inn_automl.data.sources import open_source
from inn_automl.data.splits import HELD_OUT_PERCENT

if TYPE_CHECKING:
    from inn_automl.data.samples import RawSamples

COMMON_SHARE = 0.5
"""Share of the images that has to have one size for it to be the size of all."""
LARGEST_CHOSEN_SIDE = 224
"""Of images of many sizes, where neither the user nor a pretrained network says the size."""
SIDE_STEP = 8
"""Chosen sides are multiples of it, so that strides divide them."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A dataset before it is loaded: either `samples`, of arrays, or a `catalog` of files.

    Attributes:
        name: of the dataset.
        options: that it was scanned with.
        samples: of a source that is an array.
        catalog: of a source of files, without those that are broken.
        headers: of images, one for each entry of the catalog.
    """

    name: str
    options: DataOptions
    samples: RawSamples | None = None
    catalog: Catalog | None = None
    headers: Sequence[ImageHeader] = ()

    @property
    def kind(self) -> Literal["image", "signal"]:
        """Of the samples."""
        if self.samples is not None:
            return "image" if self.samples.x.ndim == 4 else "signal"
        assert self.catalog is not None
        return "image" if self.catalog.media == "image" else "signal"

    @property
    def task(self) -> TaskKind:
        """That labels or targets imply."""
        found = self._labelled
        if found.targets is None:
            return "classification"
        return "regression" if found.targets.ndim == 2 else "super-resolution"

    @property
    def num_samples(self) -> int:
        """Of all splits together."""
        return len(self.samples.x) if self.samples is not None else len(self.catalog or ())

    @property
    def num_train(self) -> int:
        """Samples of the training split, about: which they are is decided when they are loaded."""
        given = self._labelled.given
        num_made = sum(split not in given for split in ("validation", "test"))
        return round(len(given["train"]) * (1 - num_made * HELD_OUT_PERCENT / 100))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits; empty for other tasks."""
        found = self._labelled
        if found.labels is None:
            return ()
        trained = {str(label) for label in np.unique(found.labels[found.given["train"]])}
        return ordered(trained | found.empty_classes)

    @property
    def num_outputs(self) -> int | None:
        """Logits or targets of a network; None for super-resolution."""
        targets = self._labelled.targets
        if targets is None:
            return len(self.classes)
        return int(targets.shape[1]) if targets.ndim == 2 else None

    @property
    def channels(self) -> int | None:
        """Of images, 1 where all are grey, else 3; of arrays what they have; None for audio."""
        if self.samples is not None:
            return int(self.samples.x.shape[1])
        return max((header.channels for header in self.headers), default=None)

    @cached_property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of most images, or the median ones; None for signals."""
        if self.kind == "signal":
            return None
        if self.samples is not None:
            return int(self.samples.x.shape[2]), int(self.samples.x.shape[3])
        size, count = common_size(self.headers)
        if count >= COMMON_SHARE * len(self.headers):
            return size
        sizes = np.array([header.size for header in self.headers])
        return int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))

    @cached_property
    def has_one_size(self) -> bool:
        """Whether all images are of `image_size`."""
        return all(header.size == self.image_size for header in self.headers)

    @property
    def _labelled(self) -> RawSamples | Catalog:
        found = self.samples if self.samples is not None else self.catalog
        assert found is not None
        return found

    def default_preprocessing(self) -> Preprocessing | None:
        """The preprocessing that the options and the images ask for, where no pretrained network
        has its own; None for signals.

        Images of one size stay as they are. Where at least half have one size, the others are
        brought to it. Else the network takes a square whose side is the median short side, 224 at
        most.
        """
        if self.kind == "signal" or self.image_size is None:
            return None
        resize = self.options.resize or "crop"
        wanted = self.options.input_size
        if self.has_one_size and wanted in (None, self.image_size):
            return Preprocessing.identity(self.image_size)
        if wanted is not None:
            return Preprocessing.for_size(wanted, resize=resize)
        size, count = common_size(self.headers)
        if count >= COMMON_SHARE * len(self.headers):
            return Preprocessing.for_size(size, resize=resize, crop_fraction=1.0)
        side = int(np.median([min(header.size) for header in self.headers]))
        side = min(LARGEST_CHOSEN_SIDE, side)
        side = max(SIDE_STEP, side - side % SIDE_STEP)
        return Preprocessing.for_size((side, side), resize=resize)


def scan(source: str | os.PathLike[str], options: DataOptions | None = None) -> Scan:
    """Finds out what a dataset is: kind, task, number of samples, classes and image sizes, from
    listings and headers.

    Args:
        source: as for `load_dataset`.
        options: as for `load_dataset`.

    Raises:
        DatasetError: as `load_dataset`, but for what shows in decoding only.
    """
    options = options or DataOptions()
    name, found = open_source(source, options)
    if not isinstance(found, Catalog):
        return Scan(name, options, samples=found)
    found = found.grouped(options.group_pattern)
    if found.media != "image":
        return Scan(name, options, catalog=found)
    headers, broken = headers_of(found.entries, found.where)
    texts = [*found.faults, *broken.values()]
    without_broken(texts, len(found) + len(found.faults), options.skip_broken, found.where)
    kept = np.array([i for i, header in enumerate(headers) if header is not None], np.int64)
    return Scan(
        name,
        options,
        catalog=found.keeping(kept, texts),
        headers=[header for header in headers if header is not None],
    )
