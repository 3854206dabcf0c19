"""The options that say how a dataset is read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from inn_automl.core.fields import Number, Positive, Strict

MAX_INPUT_SIZE = 4096
_Side = Annotated[int, Number, Field(ge=4, le=MAX_INPUT_SIZE)]
_Column = Annotated[str, Field(min_length=1, max_length=256)]


def _sides(value: Any) -> Any:
    """`224` and `"224"` are squares, `"192x256"` is height by width."""
    if isinstance(value, str):
        sides = re.fullmatch(r"\s*(\d+)(?:\s*[x×]\s*(\d+))?\s*", value)
        if sides is None:
            raise ValueError("input should be a side like 224, or HEIGHTxWIDTH like 192x256")
        return int(sides[1]), int(sides[2] or sides[1])
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    return value


class DataOptions(Strict):
    """How the samples of a dataset are read. What is left out is chosen by the data and the model.

    Example:
        >>> from inn_automl import DataOptions
        >>> DataOptions(input_size=224, resize="pad").input_size
        (224, 224)
    """

    input_size: Annotated[tuple[_Side, _Side] | None, BeforeValidator(_sides)] = None
    """Height and width of the images that the network takes: a side, `HEIGHTxWIDTH`, or a list of
    the two. None: the pretrained model's own, or what the images have."""
    resize: Literal["crop", "pad", "stretch"] | None = None
    """How images of another size are brought to it: `crop` cuts what is over around the centre,
    `pad` adds bars, both keep the aspect; `stretch` does not. None: as the pretrained model was
    trained, else `crop`."""
    skip_broken: Annotated[float, Number, Field(ge=0, le=0.5)] = 0.0
    """Share of the samples that may be left out because they cannot be read, with a note; beyond
    it the dataset is refused."""
    label_column: _Column | None = None
    """Column of a manifest that holds the class or the target. None: a usual name is looked
    for, like `label`."""
    path_column: _Column | None = None
    """Column with the path of each file, relative to the manifest, or with its bytes."""
    split_column: _Column | None = None
    """Column with `train`, `validation` or `test`."""
    group_column: _Column | None = None
    """Column with the speaker, patient or device of a sample: samples of one group are kept in one
    split."""
    weight_column: _Column | None = None
    """Column with the weight of a sample: training draws those with twice the weight twice as
    often."""
    group_pattern: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Regular expression that finds the group in the path of a file, by its first group:
    `speaker(\\d+)_`. For class folders and archives, which have no columns."""
    sample_rate_hz: Annotated[int, Number, Field(ge=100, le=384_000)] | None = None
    """Rate that audio is resampled to. None: the most common rate of the recordings, 16,000 at
    most."""
    window_seconds: Positive | None = None
    """Length of the windows that recordings are cut into. None: the median recording is one
    window."""
