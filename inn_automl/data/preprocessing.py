"""The geometry and the statistics that bring an image of any size to what a network takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Resize = Literal["crop", "pad", "stretch"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
RESIZES: tuple[Resize, ...] = get_args(Resize)

CROP_FRACTION = 0.875
"""Side of the evaluated centre over the side that is stored, as of most ImageNet networks (224 of
256): what is left is room for random crops in training.
"""


@dataclass(frozen=True)
class Preprocessing:
    """How an image of any size becomes the input of a network. Sizes are (height, width).

    - `crop`: the image is resized with its aspect until it just covers `stored_size`, and cut to
      that around its centre; the network then sees the centre of `input_size`.
    - `pad`: the image is resized with its aspect until it just fits into `stored_size`, and set
      into the middle of a plane of `fill` (a letterbox).
    - `stretch`: both sides are resized, whatever that does to the aspect.

    Attributes:
        input_size: what the network takes.
        stored_size: what the cache stores; training draws its crops from it, evaluation takes the
            centre of `input_size`.
        resize: see above.
        crop_fraction: `input_size` over `stored_size`; 1 unless `resize` is `crop`.
        interpolation: of resizing; it is antialiased where the image shrinks.
        channels: 1 (grey) or 3 (RGB); None for what the images have.
        mean: of each channel, in units of the stored values (0 to 255 for bytes); None for that of
            the training split.
        std: likewise.
        fill: value of what `pad` adds, in the same units.
    """

    input_size: tuple[int, int]
    stored_size: tuple[int, int]
    resize: Resize = "crop"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fill: float = 0.0

    @classmethod
    def for_size(
        cls,
        input_size: Sequence[int],
        *,
        resize: Resize = "crop",
        crop_fraction: float = CROP_FRACTION,
        interpolation: Interpolation = "bilinear",
        channels: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Preprocessing:
        """The preprocessing of a network that takes images of `input_size`.

        Args:
            input_size: (height, width).
            crop_fraction: timm's `crop_pct`; counts for `crop` only.
            mean: of each channel as pretrained networks give it, as a share of full scale (0.485
                for the red of ImageNet); None for that of the training split.
            std: likewise.
        """
        height, width = (int(side) for side in input_size)
        fraction = crop_fraction if resize == "crop" else 1.0
        return cls(
            input_size=(height, width),
            stored_size=(round(height / fraction), round(width / fraction)),
            resize=resize,
            crop_fraction=fraction,
            interpolation=interpolation,
            channels=channels,
            mean=None if mean is None else tuple(255 * value for value in mean),
            std=None if std is None else tuple(255 * value for value in std),
        )

    @classmethod
    def identity(cls, size: Sequence[int]) -> Preprocessing:
        """Leaves images of `size`, (height, width), as they are."""
        height, width = (int(side) for side in size)
        return cls((height, width), (height, width), resize="stretch")

    @classmethod
    def from_metadata(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that `metadata` describes."""
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**known)

    def metadata(self) -> dict[str, Any]:
        """All attributes, ready for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    def with_input_size(self, input_size: Sequence[int]) -> Preprocessing:
        """The same for another size, with the same crop fraction."""
        height, width = (int(side) for side in input_size)
        stored = round(height / self.crop_fraction), round(width / self.crop_fraction)
        return replace(self, input_size=(height, width), stored_size=stored)

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """What an image of `size` is resized to before it is cut or padded to `stored_size`."""
        height, width = self.stored_size
        if self.resize == "stretch":
            return height, width
        ratios = height / size[0], width / size[1]
        if self.resize == "crop":
            ratio = max(ratios)
            return max(height, round(size[0] * ratio)), max(width, round(size[1] * ratio))
        ratio = min(ratios)
        return (
            min(height, max(1, round(size[0] * ratio))),
            min(width, max(1, round(size[1] * ratio))),
        )

    def framed(self, x: np.ndarray) -> np.ndarray:
        """Cuts or pads an image (..., H, W) of `scaled_size` to `stored_size`."""
        height, width = self.stored_size
        if self.resize == "pad":
            above = (height - x.shape[-2]) // 2
            left = (width - x.shape[-1]) // 2
            if x.shape[-2:] == (height, width):
                return x
            plane = np.full((*x.shape[:-2], height, width), self.fill, x.dtype)
            plane[..., above : above + x.shape[-2], left : left + x.shape[-1]] = x
            return plane
        return centre(x, (height, width))

    def evaluated(self, x: np.ndarray) -> np.ndarray:
        """The part of stored images (..., H, W) that the network sees in evaluation."""
        return centre(x, self.input_size)


def centre(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The centre of `size`, (height, width), of images (..., H, W); a view."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]
