"""Datasets of a project."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from inn_automl.api.base import Name, Sha256, UtcTime, WireModel
from inn_automl.core.metric import TaskKind

FILENAME_PATTERN = (
    r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,123}\.([nN][pP][zZ]|[zZ][iI][pP]|[tT][gG][zZ]"
    r"|[tT][aA][rR](\.([gG][zZ]|[bB][zZ]2|[xX][zZ]))?|[pP][aA][rR][qQ][uU][eE][tT])$"
)
"""Names of files that datasets are uploaded as."""
KINDS_OF_FILES = "an .npz file, a .zip or .tar (also compressed), or a .parquet file"


class RegisterDataset(WireModel):
    """A dataset to fetch from a URL whose scheme and root the coordinator's settings allow."""

    name: Name
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    sha256: Sha256 | None = None
    """Hash that the content must have."""


class DatasetSummary(WireModel):
    """Summary of the content, made when it was checked."""

    kind: Literal["image", "signal"]
    task: TaskKind = "classification"
    input_shape: tuple[int, ...]
    """Shape of one sample: C x H x W or C x L."""
    output_shape: tuple[int, ...] = ()
    """Shape of a model's output for one sample: classes, targets, or an image of C x H x W."""
    classes: tuple[str, ...]
    """Empty for other tasks than classification."""
    num_samples: int
    class_counts: tuple[int, ...]
    """Samples of each class, in the order of `classes`."""
    split_sizes: dict[str, int]
    """Samples of "train", "validation" and "test" for seed 0."""
    notes: tuple[str, ...] = ()
    num_thumbnails: int = 0


class StoredDataset(WireModel):
    id: str
    name: Name
    filename: str
    sha256: Sha256
    size_bytes: int
    source_url: str | None
    metadata: DatasetSummary
    created_at: UtcTime
