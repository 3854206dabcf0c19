"""Names of augmentation, for those who check a spec without torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from inn_automl.core.errors import UnknownNameError

LEVELS = ("auto", "none", "light", "strong")
"""`auto` lets the kind of task and the size of the images choose between the others."""
TRANSFORMS = (
    "shift",
    "resized_crop",
    "flip",
    "trivial_augment",
    "erasing",
    "mixup",
    "cutmix",
)
"""What images can be varied by. `shift` moves them by up to 1/8 of each side; the others are
torchvision's of these names, with horizontal flips."""


def _checked(value: Any) -> Any:
    """A level as it is, and a list of transforms in the order in which they are applied.

    A text with commas is a list, as a command line gives it.
    """
    if isinstance(value, str):
        if value in LEVELS:
            return value
        value = [name.strip() for name in value.split(",")]
        if len(value) == 1 and value[0] not in TRANSFORMS:
            raise UnknownNameError("augmentation", value[0], (*LEVELS, *TRANSFORMS))
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"give {', '.join(LEVELS)}, or a list of {', '.join(TRANSFORMS)}")
    for name in value:
        if name not in TRANSFORMS:
            raise UnknownNameError("transform of augmentation", str(name), TRANSFORMS)
    return tuple(name for name in TRANSFORMS if name in value)


AugmentationChoice = Annotated[str | tuple[str, ...], BeforeValidator(_checked)]
"""One of `LEVELS`, or names of `TRANSFORMS`."""
