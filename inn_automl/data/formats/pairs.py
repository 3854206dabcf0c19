"""Paired images from folders, or ZIP archives of them, for super-resolution: a folder of inputs
and one of targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.dataset import scale_of
from inn_automl.data.faults import without_broken
from inn_automl.data.files import DatasetFile
from inn_automl.data.images import read_headers, read_images
from inn_automl.data.samples import RawSamples, Split

INPUT, TARGET = "input", "target"


def are_pairs(names: set[str]) -> bool:
    """True if folders of these names hold the two sides of pairs: both are there, in any case of
    letters, and no others.
    """
    return {name.casefold() for name in names} == {INPUT, TARGET}


def load_pairs(files: Mapping[Split, Sequence[DatasetFile]], top: int, where: str) -> RawSamples:
    """Reads pairs of images of the same name; files lie directly in the folders `input` and
    `target`.

    Args:
        files: images by split.
        top: position of `input` or `target` in the parts of a file's path.
        where: name of the dataset in messages.

    Raises:
        DatasetFormatError: an image without its partner, or nested deeper; a pair whose target is
            not an integer times as large, at least twice; pairs of different sizes, scales,
            channels or depths; a damaged image.
    """
    pairs: list[tuple[DatasetFile, DatasetFile]] = []
    given: dict[Split, np.ndarray] = {}
    for split, entries in files.items():
        found = _matched(entries, top, where)
        given[split] = np.arange(len(pairs), len(pairs) + len(found))
        pairs += found
    _check_sizes(pairs, where)
    inputs, notes = read_images([small for small, _ in pairs], where)
    targets, more = read_images([large for _, large in pairs], where)
    if inputs.shape[1] != targets.shape[1] or inputs.dtype != targets.dtype:
        small, large = pairs[0]
        raise DatasetFormatError(
            f"{small.path!r} in {where} has {inputs.shape[1]} channel(s) of {inputs.dtype} but its "
            f"target "
            f"{large.path!r} {targets.shape[1]} of {targets.dtype}: save both in one mode and "
            f"depth."
        )
    return RawSamples(x=inputs, labels=None, targets=targets, given=given, notes=(*notes, *more))


def _matched(
    entries: Sequence[DatasetFile], top: int, where: str
) -> list[tuple[DatasetFile, DatasetFile]]:
    """The pairs of one split, by name without its suffix."""
    sides: dict[str, dict[str, DatasetFile]] = {INPUT: {}, TARGET: {}}
    for entry in entries:
        side = sides[entry.parts[top].casefold()]
        stem = entry.parts[-1].rpartition(".")[0]
        if len(entry.parts) != top + 2:
            raise DatasetFormatError(
                f"{entry.path!r} in {where} lies in a folder of its own: put images directly into "
                f"{INPUT} and {TARGET}."
            )
        if stem in side:
            raise DatasetFormatError(
                f"{side[stem].path!r} and {entry.path!r} in {where} share one name: give every "
                f"pair its own."
            )
        side[stem] = entry
    for name, other in ((INPUT, TARGET), (TARGET, INPUT)):
        lonely = sorted(sides[name].keys() - sides[other].keys())
        if lonely:
            entry = sides[name][lonely[0]]
            more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise DatasetFormatError(
                f"{entry.path!r} in {where} has no partner in {other}{more}: add an image of the "
                f"same name there, or "
                "remove it."
            )
    return [(sides[INPUT][key], sides[TARGET][key]) for key in sorted(sides[INPUT])]


def _check_sizes(pairs: Sequence[tuple[DatasetFile, DatasetFile]], where: str) -> None:
    first: tuple[tuple[int, int], int] | None = None
    headers, faults = read_headers([entry for pair in pairs for entry in pair], where)
    without_broken(faults, len(headers), 0.0, where)
    found = [header.size for header in headers if header is not None]
    for i, (small, large) in enumerate(pairs):
        sizes = found[2 * i], found[2 * i + 1]
        scale = scale_of(*sizes)
        if scale is None:
            raise DatasetFormatError(
                f"{small.path!r} in {where} has {_text(sizes[0])} pixels and its target "
                f"{large.path!r} "
                f"{_text(sizes[1])} (height x width): give a target whose sides are both 2, 3 or "
                f"more times those of "
                "its input."
            )
        if first is None:
            first = sizes[0], scale
        if scale != first[1]:
            raise DatasetFormatError(
                f"{large.path!r} in {where} is {scale} times as large as its input, but "
                f"{pairs[0][1].path!r} "
                f"{first[1]} times: give pairs of one scale."
            )
        if sizes[0] != first[0]:
            raise DatasetFormatError(
                f"{small.path!r} in {where} has {_text(sizes[0])} pixels but {pairs[0][0].path!r} "
                f"{_text(first[0])} "
                "(height x width): cut all pairs into tiles of one size."
            )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
