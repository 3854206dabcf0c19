"""The samples of a dataset of files, before any is decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.files import DatasetFile
from inn_automl.data.samples import Split

Media = Literal["image", "audio"]


def check_groups(
    groups: np.ndarray, given: Mapping[Split, np.ndarray], column: str, where: str
) -> None:
    """Raises DatasetFormatError where a group is in two given splits."""
    seen: dict[str, Split] = {}
    for split, indices in given.items():
        for group in np.unique(groups[indices]).tolist():
            other = seen.setdefault(group, split)
            if other != split:
                raise DatasetFormatError(
                    f"{column} = {group!r} of {where} is in the given splits {other!r} and "
                    f"{split!r}: what is measured there was seen in training; put all of its "
                    "samples into one split."
                )


@dataclass(frozen=True, eq=False)
class Catalog:
    """Files with their labels.

    Attributes:
        media: what the files hold.
        entries: one file a sample.
        labels: (N,) class names; None where there are `targets`.
        given: positions by split; what no split has is under `"train"`.
        where: name of the dataset in messages.
        targets: (N, K) float32 of a regression.
        groups: (N,) names of what must stay in one split: speaker, patient, device.
        weights: (N,) float32, of the samples in training.
        empty_classes: classes that the dataset names but has no training samples of.
        notes: one sentence for each thing that was decided or changed.
        faults: of samples that were left out already.
    """

    media: Media
    entries: Sequence[DatasetFile]
    labels: np.ndarray | None
    given: Mapping[Split, np.ndarray]
    where: str
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    empty_classes: frozenset[str] = field(default=frozenset())
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def grouped(self, pattern: str | None) -> Catalog:
        """The same, with groups found in the paths of the files by a regular expression.

        Raises:
            DatasetFormatError: it is none, or has no group; it finds nothing in a path; a group is
                in two given splits.
        """
        if pattern is None:
            return self
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise DatasetFormatError(
                f"group_pattern = {pattern!r} is no regular expression ({error}): correct it."
            ) from None
        if expression.groups < 1:
            raise DatasetFormatError(
                f"group_pattern = {pattern!r} has no group: put what names the group into "
                "parentheses, like 'speaker([0-9]+)'."
            )
        groups = []
        for entry in self.entries:
            found = expression.search(entry.path)
            if found is None or found[1] is None:
                raise DatasetFormatError(
                    f"group_pattern = {pattern!r} finds nothing in {entry.path!r} of {self.where}: "
                    "correct it, or rename the file."
                )
            groups.append(found[1])
        named = np.array(groups, np.str_)
        check_groups(named, self.given, "group_pattern", self.where)
        return replace(self, groups=named)

    def keeping(self, kept: np.ndarray, faults: Sequence[str]) -> Catalog:
        """The samples at `kept`, ascending positions; `faults` are those of all others."""
        if len(kept) == len(self):
            return self
        moved = np.full(len(self), -1, np.int64)
        moved[kept] = np.arange(len(kept))
        given: dict[Split, np.ndarray] = {}
        for split, indices in self.given.items():
            places = moved[indices]
            given[split] = places[places >= 0]
        return replace(
            self,
            faults=tuple(faults),
            entries=[self.entries[i] for i in kept],
            given=given,
            labels=_chosen(self.labels, kept),
            targets=_chosen(self.targets, kept),
            groups=_chosen(self.groups, kept),
            weights=_chosen(self.weights, kept),
        )


def _chosen(values: np.ndarray | None, kept: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[kept]
