"""Parquet files, and folders as Hugging Face's `datasets` and its hub lay them out.

- `NAME.parquet`, or `data/train-00000-of-00002.parquet` and so on: the split is in the name.
- The folder of `save_to_disk`: Arrow files, in one folder a split.

Samples are a column of bytes, of structs with `bytes` and `path` (the features `Image` and
`Audio`), or of paths; labels are text, numbers, or a `ClassLabel`, whose names are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.catalog import Catalog, Media
from inn_automl.data.files import DatasetFile
from inn_automl.data.formats.columnar import ArrowGroups, Cell, ParquetGroups, RowGroups
from inn_automl.data.formats.columns import SPLIT_OF_VALUE, USUAL_NAMES, Columns, Texts, texts
from inn_automl.data.formats.manifest import Table, catalog_of, file_on_disk
from inn_automl.data.formats.media import media_of

if TYPE_CHECKING:
    import pyarrow

STATE_FILE, INFO_FILE, DICT_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
_SPLIT_NAME = re.compile(r"^([a-z]+)(?:[-_.]|$)")
_MEDIA_OF_FEATURE: dict[str, Media] = {"Image": "image", "Audio": "audio"}


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / DICT_FILE).is_file() or (
        (folder / STATE_FILE).is_file() and (folder / INFO_FILE).is_file()
    )


def read_parquet(files: Sequence[Path], where: str, options: DataOptions) -> Catalog:
    """Reads Parquet files as one dataset, by splits where all of their names begin with one.

    Raises:
        DatasetFormatError: one cannot be read, or lacks a column.
    """
    splits = [_split_in_name(path, is_alone=len(files) == 1) for path in files]
    return _read([ParquetGroups(path, repr(str(path))) for path in files], splits, where, options)


def read_saved(folder: Path, options: DataOptions) -> Catalog:
    """Reads a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Raises:
        DatasetFormatError: it cannot be read, or lacks a column.
    """
    where = repr(str(folder))
    names = [None] if not (folder / DICT_FILE).is_file() else _json(folder / DICT_FILE)["splits"]
    groups: list[RowGroups] = []
    splits: list[str | None] = []
    for name in names:
        below = folder if name is None else folder / name
        state = _json(below / STATE_FILE)
        if state.get("_indices_data_files"):
            raise DatasetFormatError(
                f"{str(below)!r} was saved with an order of its rows beside them: save it after "
                "flatten_indices()."
            )
        for one in state["_data_files"]:
            groups.append(ArrowGroups(below / one["filename"], where))
            splits.append(name)
    return _read(groups, splits, where, options)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read ({error}): save the dataset again."
        ) from None
    return found if isinstance(found, dict) else {}


def _split_in_name(path: Path, *, is_alone: bool) -> str | None:
    """The split that a file is of, by its name, or that of its folder in the dataset."""
    found = _SPLIT_NAME.match(path.name.casefold())
    if found is not None and found[1] in SPLIT_OF_VALUE:
        return SPLIT_OF_VALUE[found[1]]
    return None if is_alone else SPLIT_OF_VALUE.get(path.parent.name.casefold())


def _read(
    files: Sequence[RowGroups], splits: Sequence[str | None], where: str, options: DataOptions
) -> Catalog:
    names = list(files[0].schema.names)
    for file in files[1:]:
        if list(file.schema.names) != names:
            raise DatasetFormatError(
                f"{file.where} has other columns than {files[0].where}: write all files alike."
            )
    features = files[0].features()
    path = options.path_column or _sample_column(files[0].schema, features)
    if options.path_column is not None or path is None:
        path = Columns.of(names, options, where)[0].path
    column = _Columns(files, splits, features)
    shown = [*names, *(["split"] if column.has_splits and "split" not in names else [])]
    label = next((name for name, one in features.items() if one.get("_type") == "ClassLabel"), None)
    if label is not None and options.label_column is None and label not in USUAL_NAMES["label"]:
        options = options.model_copy(update={"label_column": label})
    entries = _entries(files, path, where)
    plain = [entry for entry in entries if isinstance(entry, DatasetFile)]
    media = _MEDIA_OF_FEATURE.get(str(features.get(path, {}).get("_type")))
    table = Table(where, shown, column, entries, path, media or media_of(plain[:1], where))
    return catalog_of(table, options)


class _Columns:
    """Columns of several files, one after the other, with the split of each."""

    def __init__(
        self,
        files: Sequence[RowGroups],
        splits: Sequence[str | None],
        features: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._files, self._splits, self._features = files, splits, features
        self.has_splits = None not in splits

    def __call__(self, name: str) -> Texts:
        if name == "split" and self.has_splits:
            return [
                split
                for file, split in zip(self._files, self._splits, strict=True)
                for _ in range(sum(file.counts))
            ]
        names = self._features.get(name, {}).get("names")
        known = list(map(str, names)) if isinstance(names, list) else None
        values = [value for file in self._files for value in file.column(name)]
        if known is None:
            return texts(values)
        return texts(values, lambda number: known[number] if number < len(known) else str(number))


def _sample_column(schema: pyarrow.Schema, features: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The column with the samples: an `Image` or `Audio`, else the only one of bytes."""
    import pyarrow

    named = [name for name, one in features.items() if one.get("_type") in _MEDIA_OF_FEATURE]
    if named:
        return named[0]
    found = []
    for field in schema:
        kind = field.type
        if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            found.append(field.name)
    return found[0] if len(found) == 1 else None


def _entries(files: Sequence[RowGroups], column: str, where: str) -> list[DatasetFile | str]:
    import pyarrow

    entries: list[DatasetFile | str] = []
    for file in files:
        kind = file.schema.field(column).type
        if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            entries += [
                file_on_disk(name, file.path.parent, where) if name else "the path is empty."
                for name in file.column(column)
            ]
            continue
        for group, count in enumerate(file.counts):
            entries += [
                DatasetFile((file.path.name, f"{group}-{row}"), Cell(file, group, row, column))
                for row in range(count)
            ]
    return entries
