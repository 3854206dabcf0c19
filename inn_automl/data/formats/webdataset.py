"""WebDataset's naming: the files of a sample share their name up to the first dot, in one TAR or
in several shards (`key.jpg` beside `key.cls` or `key.json`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.catalog import Catalog
from inn_automl.data.files import DatasetFile, FileListing
from inn_automl.data.formats.columns import SPLIT_OF_VALUE, Texts
from inn_automl.data.formats.manifest import Table, catalog_of
from inn_automl.data.formats.media import AUDIO_SUFFIXES, media_of
from inn_automl.data.images import SUFFIXES as IMAGE_SUFFIXES

LABEL_SUFFIXES = (".cls", ".json", ".txt")
"""Files with the label of a sample, the most telling first."""
_MEDIA_SUFFIXES = IMAGE_SUFFIXES | AUDIO_SUFFIXES
_SPLIT_WORD = re.compile(
    rf"(?:^|[^a-z])({'|'.join(sorted(SPLIT_OF_VALUE, key=len, reverse=True))})(?:[^a-z]|$)"
)


def is_webdataset(listing: FileListing) -> bool:
    """Whether labels lie beside the samples, under the same keys."""
    keys = {suffix: set[tuple[str, ...]]() for suffix in (*LABEL_SUFFIXES, "media")}
    for file in listing.files:
        suffix = "media" if file.suffix in _MEDIA_SUFFIXES else file.suffix
        if suffix in keys:
            keys[suffix].add(_key(file))
    labelled = keys[".cls"] | keys[".json"] | keys[".txt"]
    return 2 * len(keys["media"] & labelled) > len(keys["media"])


def read_webdataset(
    shards: Sequence[tuple[str, FileListing]], where: str, options: DataOptions
) -> Catalog:
    """Reads the samples of shards. Where the names of all shards hold train, validation or test,
    these are the splits.

    Args:
        shards: name and files of each.
        where: name of the dataset in messages.

    Raises:
        DatasetFormatError: a sample without a label, more than one image or recording, or JSON
            that cannot be read.
    """
    entries: list[DatasetFile | str] = []
    rows: list[dict[str, Any]] = []
    splits = [_split_of(name) for name, _ in shards]
    for (name, listing), split in zip(shards, splits, strict=True):
        for key, files in _samples(listing).items():
            entry, row = _sample(key, files, f"{name!r}" if len(shards) > 1 else where)
            entries.append(entry)
            rows.append(row if None in splits else {"split": split, **row})
    names = list(dict.fromkeys(column for row in rows for column in row))
    plain = [entry for entry in entries if isinstance(entry, DatasetFile)]
    table = Table(
        where=where,
        names=names,
        column=lambda column: _column(rows, column),
        entries=entries,
        path="",
        media=media_of(plain, where),
    )
    return catalog_of(table, options)


def _column(rows: Sequence[dict[str, Any]], column: str) -> Texts:
    found = (row.get(column) for row in rows)
    return [None if value is None else str(value) for value in found]


def _key(file: DatasetFile) -> tuple[str, ...]:
    return (*file.parts[:-1], file.parts[-1].split(".", 1)[0])


def _samples(listing: FileListing) -> dict[tuple[str, ...], list[DatasetFile]]:
    found: dict[tuple[str, ...], list[DatasetFile]] = {}
    for file in listing.files:
        if file.suffix in _MEDIA_SUFFIXES or file.suffix in LABEL_SUFFIXES:
            found.setdefault(_key(file), []).append(file)
    return found


def _sample(
    key: tuple[str, ...], files: Sequence[DatasetFile], where: str
) -> tuple[DatasetFile | str, dict[str, Any]]:
    """The image or recording of a sample, or what is wrong with it; and its columns."""
    media = [file for file in files if file.suffix in _MEDIA_SUFFIXES]
    name = "/".join(key)
    if len(media) != 1:
        what = "no image or recording" if not media else f"{len(media)} images or recordings"
        return f"{name!r} in {where} has {what}: give one.", {}
    label = next(
        (file for suffix in LABEL_SUFFIXES for file in files if file.suffix == suffix), None
    )
    if label is None:
        return f"{name!r} in {where} has no .cls or .json: add its label.", {}
    row: dict[str, Any] = {}
    for file in files:
        if file.suffix == ".json":
            row |= _json(file, where)
    if label.suffix != ".json":
        row["label"] = label.read().decode("utf-8", "replace").strip()
    return media[0], row


def _json(file: DatasetFile, where: str) -> dict[str, Any]:
    try:
        values = json.loads(file.read())
    except ValueError as error:
        raise DatasetFormatError(
            f"{file.path!r} in {where} is not JSON ({error}): write it again."
        ) from None
    if isinstance(values, dict):
        return {str(name): value for name, value in values.items()}
    return {"label": values}


def _split_of(name: str) -> str | None:
    found = _SPLIT_WORD.search(name.casefold())
    return None if found is None else SPLIT_OF_VALUE[found[1]]
