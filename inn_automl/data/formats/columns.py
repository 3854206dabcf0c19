"""The columns of a manifest: which is which, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError, UnknownNameError
from inn_automl.data.samples import SPLITS, Split, composed

USUAL_NAMES = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path"),
        *("img", "audio", "audio_path", "recording", "wav", "clip", "bytes", "content"),
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target", "y", "species"),
    "split": ("split", "subset", "set", "partition"),
    "group": (
        *("group", "group_id", "speaker", "speaker_id", "client_id", "patient", "patient_id"),
        *("subject", "subject_id", "device", "device_id", "site"),
    ),
    "weight": ("weight", "weights", "sample_weight"),
}
"""Names that columns are looked for under, the most telling first; letter case does not count."""
SPLIT_OF_VALUE: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
Texts = Sequence[str | None]


@dataclass(frozen=True)
class Columns:
    """Names of a manifest's columns; None for one that it lacks."""

    path: str
    label: str
    split: str | None
    group: str | None
    weight: str | None

    @classmethod
    def of(
        cls, names: Sequence[str], options: DataOptions, where: str, *, path: str | None = None
    ) -> tuple[Columns, tuple[str, ...]]:
        """The columns among `names`, by the options or by usual names; and a note on what was
        guessed.

        Args:
            path: the path column, where it is known already.

        Raises:
            DatasetFormatError: there is no such column, or none that could be meant.
        """
        found: dict[str, str | None] = {"path": path}
        guessed = [f"{path!r} as path"] if path and options.path_column is None else []
        for role, usual in USUAL_NAMES.items():
            if found.get(role) is not None:
                continue
            given = getattr(options, f"{role}_column")
            if given is not None:
                found[role] = _named(names, given, where)
                continue
            free = {name.casefold(): name for name in names if name not in found.values()}
            found[role] = next((free[name] for name in usual if name in free), None)
            if found[role] is not None:
                guessed.append(f"{found[role]!r} as {role}")
        for role in ("path", "label"):
            if found[role] is None:
                raise DatasetFormatError(
                    f"{where} has the columns {', '.join(map(repr, names))}, none of which is "
                    f"named like a {role}: name it with {role}_column (--{role}-column)."
                )
        path_column, label = found["path"], found["label"]
        assert path_column is not None and label is not None
        columns = cls(path_column, label, found["split"], found["group"], found["weight"])
        note = f"Of {where}, columns were read as their names say: {', '.join(guessed)}."
        return columns, (note,) if guessed else ()


def _named(names: Sequence[str], given: str, where: str) -> str:
    if given in names:
        return given
    raise DatasetFormatError(str(UnknownNameError("column", given, names, where)))


def given_splits(
    values: Texts | None, kept: np.ndarray, column: str | None, where: str
) -> dict[Split, np.ndarray]:
    """Positions by split; all are training samples where there is no column.

    Args:
        values: of the split column, one for each sample.
        kept: (N,) whether a sample is used.

    Raises:
        DatasetFormatError: a value that names no split.
    """
    positions = np.cumsum(kept) - 1
    if values is None:
        return {"train": np.arange(int(kept.sum()))}
    found: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for row in np.flatnonzero(kept).tolist():
        value = values[row]
        split = SPLIT_OF_VALUE.get((value or "").strip().casefold())
        if split is None:
            raise DatasetFormatError(
                f"row {row + 1} of {where} has {column} = {value!r}: write train, validation or "
                "test, or leave the column out (all samples are split then)."
            )
        found[split].append(int(positions[row]))
    return {
        split: np.array(indices, np.int64)
        for split, indices in found.items()
        if indices or split == "train"
    }


def labels_or_targets(values: Texts) -> tuple[np.ndarray | None, np.ndarray | None, str | None]:
    """Class names (N,), or the targets (N, 1) of a regression, where all are numbers and some are
    no integers; and a note on the latter.

    Args:
        values: labels as text; none is empty.
    """
    texts = [composed((value or "").strip()) for value in values]
    numbers = _numbers(texts)
    if numbers is None or all(_is_integer(text) for text in texts):
        return np.array(texts, np.str_), None, None
    note = (
        "Labels are numbers, not all of them whole: they were read as targets of a regression; "
        "name classes by text or whole numbers."
    )
    return None, numbers.astype(np.float32)[:, None], note


def weights_of(values: Texts, column: str, where: str) -> np.ndarray:
    """(N,) float32.

    Raises:
        DatasetFormatError: one is no number, or negative; or all are 0.
    """
    weights = np.zeros(len(values), np.float32)
    for row, value in enumerate(values):
        number = _number(value or "")
        if number is None or number < 0:
            raise DatasetFormatError(
                f"{where} has {column} = {value!r}: a weight is a number of at least 0."
            )
        weights[row] = number
    if not weights.any():
        raise DatasetFormatError(f"{where} has {column} = 0 in all rows: leave the column out.")
    return weights


def texts(values: Sequence[object], name: Callable[[int], str] | None = None) -> list[str | None]:
    """Values of a column as text; class numbers by their names, where there are some."""
    made: list[str | None] = []
    for value in values:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            made.append(None)
        elif name is not None and isinstance(value, int) and value >= 0:
            made.append(name(value))
        else:
            made.append(str(value))
    return made


def _numbers(values: Sequence[str]) -> np.ndarray | None:
    made = np.empty(len(values))
    for row, text in enumerate(values):
        number = _number(text)
        if number is None:
            return None
        made[row] = number
    return made


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
