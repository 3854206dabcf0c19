"""What varies the images of a training: names of transforms, and the defaults by task and size.

- Resized crops: C. Szegedy et al., "Going deeper with convolutions", CVPR 2015.
- TrivialAugment: S. Müller and F. Hutter, "TrivialAugment", ICCV 2021.
- Erasing: Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.
- Mixup: H. Zhang et al., ICLR 2018. CutMix: S. Yun et al., ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inn_automl.core.errors import SpecError
from inn_automl.data.augmentation import IMAGE_SHIFT

if TYPE_CHECKING:
    from inn_automl.data import Dataset

MIXES = ("mixup", "cutmix")
"""Transforms that make one sample of two, and its target a mixture."""
SMALL_SIDE = 48
"""Up to this side images are moved only, as digits and icons allow; larger ones are taken for
photographs.
"""
CROP_AREA = (0.35, 1.0)
"""Share of an image that a crop keeps. ImageNet's usual 0.08 loses what is small in an image, and
a short training never sees the rest.
"""
ERASED_SHARE = 0.25
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0

_LIGHT: tuple[str, ...] = ("resized_crop", "flip")
_STRONG: tuple[str, ...] = (*_LIGHT, "trivial_augment", "erasing", *MIXES)


def choose_transforms(
    choice: str | Sequence[str], dataset: Dataset
) -> tuple[bool, tuple[str, ...]]:
    """The `augment` and `transforms` of a recipe.

    Args:
        choice: as in `JobSpec.augmentation`.

    Raises:
        SpecError: a named transform does not fit the samples.
    """
    if choice == "none":
        return False, ()
    if not isinstance(choice, str):
        for name in choice:
            _check(name, dataset)
        is_plain = tuple(choice) == ("shift",) and dataset.task == "classification"
        return True, () if is_plain else tuple(choice)
    if dataset.kind != "image" or dataset.task != "classification":
        return True, ()  # what the objective finds safe
    is_small = min(dataset.input_shape[1:]) <= SMALL_SIDE
    if choice == "auto" and is_small:
        return True, ()
    wanted = _STRONG if choice == "strong" else _LIGHT
    if is_small:
        wanted = tuple({"resized_crop": "shift"}.get(name, name) for name in wanted)
    fitting = tuple(name for name in wanted if not _misfit(name, dataset))
    return True, () if fitting == ("shift",) else fitting


def _check(name: str, dataset: Dataset) -> None:
    reason = _misfit(name, dataset, is_named=True)
    if reason:
        raise SpecError(f"augmentation, {name!r} does not fit {dataset.name!r}: {reason}.")


def _misfit(name: str, dataset: Dataset, *, is_named: bool = False) -> str | None:
    """Why a transform does not fit, as a clause; None where it does."""
    if dataset.kind != "image":
        return "it varies images, and these are signals; choose auto or none"
    if dataset.task == "super-resolution":
        return "both images of a pair must vary alike; choose auto or none"
    if name in MIXES and dataset.task != "classification":
        return "it mixes classes, and these targets are numbers; leave it out"
    channels = dataset.input_shape[0]
    if name == "flip" and not is_named and channels != 3:
        return "a mirrored digit is another sign"
    if name == "trivial_augment" and (channels not in (1, 3) or str(dataset.x.dtype) != "uint8"):
        return (
            f"it takes bytes of 1 or 3 channels, and these are {dataset.x.dtype} of {channels}; "
            "leave it out"
        )
    return None


@dataclass(frozen=True)
class SampleTransform:
    """Varies one stored image, and brings it to the size that a network takes.

    The random state is torch's global one: whoever calls it seeds that for each sample.

    Attributes:
        names: of the transforms; without any the centre is cut out.
        input_size: (height, width) of the network.
        fill: value of each channel for what is erased.
    """

    names: tuple[str, ...]
    input_size: tuple[int, int]
    fill: tuple[float, ...] = (0.0,)

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Images (n, C, H, W) to (n, C, *input_size).

        Args:
            seeds: one for each image.
        """
        if not self.names:
            return _centre(images, self.input_size)
        steps = self._steps()
        varied = []
        with torch.random.fork_rng(devices=[]):
            for image, seed in zip(images, seeds, strict=True):
                # `torch.manual_seed` would seed GPUs too, which takes a hundred times as long.
                torch.default_generator.manual_seed(seed)
                for step in steps:
                    image = step(image)
                varied.append(image)
        return torch.stack(varied)

    def prepare(self) -> None:
        """Imports what the transforms need, for all processes that are forked later."""
        if self.names:
            self._steps()

    def _steps(self) -> list[Callable[[Tensor], Tensor]]:
        # It takes a second to import.
        from torchvision.transforms import v2

        known: dict[str, Callable[[], Any]] = {
            "shift": lambda: self._shift,
            "resized_crop": lambda: v2.RandomResizedCrop(
                list(self.input_size), scale=CROP_AREA, antialias=True
            ),
            "flip": v2.RandomHorizontalFlip,
            "trivial_augment": v2.TrivialAugmentWide,
            "erasing": lambda: v2.RandomErasing(p=ERASED_SHARE, value=list(self.fill)),
        }
        names = [name for name in self.names if name in known]
        steps = [known[name]() for name in names]
        if "resized_crop" in names:
            return steps
        if "shift" in names:
            # The shift of a larger stored image ends in the size of the network.
            return steps
        return [lambda image: _centre(image, self.input_size), *steps]

    def _shift(self, image: Tensor) -> Tensor:
        """A random part of the network's size of an image whose border is repeated outwards."""
        margins = []
        for stored, size in zip(image.shape[1:], self.input_size, strict=True):
            margins.append(max(0, -(-(round(2 * IMAGE_SHIFT * size) - (stored - size)) // 2)))
        rows, columns = margins
        wide = F.pad(image[None].float(), (columns, columns, rows, rows), mode="replicate")[0]
        wide = wide.to(image.dtype)
        for axis, size in enumerate(self.input_size, start=1):
            start = int(torch.randint(wide.shape[axis] - size + 1, ()))
            wide = wide.narrow(axis, start, size)
        return wide


def mix(
    x: Tensor, targets: Tensor, names: Sequence[str], num_classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Mixes each sample of a batch with another one.

    Args:
        x: standardized (n, C, H, W).
        targets: class indices (n,).
        names: of `MIXES`; of two, one is chosen at random.

    Returns:
        The mixed samples, and probabilities of the classes (n, num_classes).
    """
    rng = np.random.default_rng(seed)
    name = names[int(rng.integers(len(names)))]
    labels = F.one_hot(targets, num_classes).to(x.dtype)
    if name == "mixup":
        share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
        return torch.lerp(x.roll(1, 0), x, share), torch.lerp(labels.roll(1, 0), labels, share)
    height, width = x.shape[2:]
    side = (1 - float(rng.beta(CUTMIX_ALPHA, CUTMIX_ALPHA))) ** 0.5
    rows, columns = round(side * height), round(side * width)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    box = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
    mixed = x.clone()
    mixed[box] = x.roll(1, 0)[box]
    share = 1 - rows * columns / (height * width)
    return mixed, torch.lerp(labels.roll(1, 0), labels, share)


def _centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    for axis, side in zip((-2, -1), size, strict=True):
        stored = images.shape[axis]
        if stored != side:
            images = images.narrow(axis, (stored - side) // 2, side)
    return images
