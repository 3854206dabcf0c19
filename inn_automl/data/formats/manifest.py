"""Datasets from a table with a row for each sample: paths of files, or what they hold."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import limits
from inn_automl.data.catalog import Catalog, Media, check_groups
from inn_automl.data.faults import without_broken
from inn_automl.data.files import DatasetFile, FileContent, FileListing
from inn_automl.data.formats.columns import (
    Columns,
    Texts,
    given_splits,
    labels_or_targets,
    weights_of,
)
from inn_automl.data.formats.media import media_of
from inn_automl.data.samples import composed

SUFFIXES = (".csv", ".tsv", ".jsonl")
NAMES = tuple(
    f"{name}{suffix}" for suffix in SUFFIXES for name in ("metadata", "manifest", "labels")
)
"""Files that are looked for in a folder or an archive, beside the samples that they name."""


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a manifest.

    Attributes:
        where: its name in messages.
        names: of its columns.
        column: texts of a column by its name.
        entries: the sample of each row; a text instead says what is wrong with it.
        path: the column that the entries were made from.
        media: what they hold.
    """

    where: str
    names: Sequence[str]
    column: Callable[[str], Texts]
    entries: Sequence[DatasetFile | str]
    path: str
    media: Media
    notes: tuple[str, ...] = ()


def read_csv(path: Path, options: DataOptions) -> Catalog:
    """Reads a CSV, TSV or JSON Lines file, whose paths are relative to its own folder.

    Raises:
        DatasetFormatError: it cannot be read, lacks a column, or names files that are missing.
    """
    where = repr(str(path))
    content = FileContent(str(path), where)
    return _catalog_of_csv(content.read(), path.name, where, options, _on_disk(path.parent, where))


def read_listed(listing: FileListing, manifest: DatasetFile, options: DataOptions) -> Catalog:
    """Reads a manifest that lies in a folder or an archive, beside the files that it names."""
    where = f"{manifest.path!r} in {listing.where}"
    files = {file.parts: file for file in listing.files}
    above = manifest.parts[:-1]

    def resolve(name: str) -> DatasetFile | str:
        parts = tuple(composed(part) for part in name.replace("\\", "/").split("/"))
        clean = tuple(part for part in (*above, *parts) if part not in ("", "."))
        found = files.get(clean)
        return found or f"{name!r}, which {where} names, is not there."

    return _catalog_of_csv(manifest.read(), manifest.parts[-1], where, options, resolve)


def manifest_in(listing: FileListing, options: DataOptions) -> DatasetFile | None:
    """The manifest at the top of a folder or an archive; one folder around all is accepted.

    A file without columns of paths and labels is none, unless the options name them.
    """
    tops = [file for file in listing.files if len(file.parts) <= 2]
    named = {(len(file.parts), file.parts[-1].casefold()): file for file in tops}
    for depth in (1, 2):
        for name in NAMES:
            file = named.get((depth, name))
            if file is None:
                continue
            if options.label_column or options.path_column or _has_columns(file, options):
                return file
    return None


def _has_columns(file: DatasetFile, options: DataOptions) -> bool:
    try:
        names, _ = _parsed(file.read(), file.parts[-1], file.path)
        Columns.of(names, options, file.path)
    except DatasetFormatError:
        return False
    return True


def catalog_of(table: Table, options: DataOptions) -> Catalog:
    """The catalog of a table: labels, splits, groups and weights; rows with faults are left out
    as the options allow.

    Raises:
        DatasetFormatError: a column that is missing, a value that cannot be read, too many faults.
    """
    where = table.where
    columns, notes = Columns.of(table.names, options, where, path=table.path)
    labels = table.column(columns.label)
    faults = {}
    for row, (entry, label) in enumerate(zip(table.entries, labels, strict=True)):
        if isinstance(entry, str):
            faults[row] = f"Row {row + 1}: {entry}"
        elif label is None or not label.strip():
            faults[row] = f"Row {row + 1}: the label of {entry.path!r} is empty."
    total = len(table.entries)
    if not total:
        raise DatasetFormatError(f"{where} has no rows: give one for each sample.")
    without_broken(faults, total, options.skip_broken, where)
    kept = np.ones(total, bool)
    kept[list(faults)] = False
    rows = np.flatnonzero(kept).tolist()
    splits = None if columns.split is None else table.column(columns.split)
    given = given_splits(splits, kept, columns.split, where)
    groups = weights = None
    if columns.group is not None:
        values = table.column(columns.group)
        # Rows without a group are groups of their own.
        groups = np.array([values[row] or f"row {row + 1}" for row in rows], np.str_)
        check_groups(groups, given, columns.group, where)
    if columns.weight is not None:
        values = table.column(columns.weight)
        weights = weights_of([values[row] for row in rows], columns.weight, where)
    classes, targets, note = labels_or_targets([labels[row] for row in rows])
    entries = [entry for entry in table.entries if isinstance(entry, DatasetFile)]
    if len(entries) != len(rows):
        entries = [entry for row in rows if isinstance(entry := table.entries[row], DatasetFile)]
    return Catalog(
        media=table.media,
        entries=entries,
        labels=classes,
        given=given,
        where=where,
        targets=targets,
        groups=groups,
        weights=weights,
        notes=(*table.notes, *notes, *([note] if note else [])),
        faults=tuple(faults.values()),
    )


def file_on_disk(name: str, folder: Path, where: str) -> DatasetFile | str:
    """The file that a manifest names, relative to `folder`; or what is wrong with it."""
    if not limits.FOLLOW_PATHS:
        return f"{name!r} lies outside of the file, which an upload may not: store the bytes."
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return f"there is no file at {name!r}."
    parts = tuple(composed(part) for part in name.replace("\\", "/").split("/") if part)
    return DatasetFile(parts, FileContent(path, where))


def _on_disk(folder: Path, where: str) -> Callable[[str], DatasetFile | str]:
    return lambda name: file_on_disk(name, folder, where)


def _catalog_of_csv(
    content: bytes,
    name: str,
    where: str,
    options: DataOptions,
    resolve: Callable[[str], DatasetFile | str],
) -> Catalog:
    names, rows = _parsed(content, name, where)
    columns, _ = Columns.of(names, options, where)
    places = {column: place for place, column in enumerate(names)}
    paths = [row[places[columns.path]] for row in rows]
    entries = [resolve(path) if path.strip() else "the path is empty." for path in paths]
    table = Table(
        where=where,
        names=names,
        column=lambda column: [row[places[column]] or None for row in rows],
        entries=entries,
        path=columns.path,
        media=media_of([entry for entry in entries if isinstance(entry, DatasetFile)], where),
    )
    return catalog_of(table, options)


def _parsed(content: bytes, name: str, where: str) -> tuple[list[str], list[list[str]]]:
    if name.casefold().endswith(".jsonl"):
        return _parsed_lines(content, where)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetFormatError(
            f"{where} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from None
    delimiter = "\t" if name.casefold().endswith(".tsv") else _delimiter(text)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DatasetFormatError(f"{where} cannot be read as CSV ({error}): correct it.") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise DatasetFormatError(f"{where} is empty: give a header and a row for each sample.")
    names = [cell.strip() for cell in rows[0]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetFormatError(f"{where} has two columns {twice!r}: rename one.")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(names):
            raise DatasetFormatError(
                f"row {number} of {where} has {len(row)} cells, the header {len(names)}: quote "
                "cells that hold the delimiter."
            )
    return names, rows[1:]


def _parsed_lines(content: bytes, where: str) -> tuple[list[str], list[list[str]]]:
    """Names of columns and the texts in them, of an object of JSON on each line."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetFormatError(
                f"line {number} of {where} is not JSON ({error}): correct it."
            ) from None
        if not isinstance(row, dict):
            raise DatasetFormatError(
                f"line {number} of {where} is no object: write {{...}} for each sample."
            )
        rows.append(row)
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if not names:
        raise DatasetFormatError(f"{where} is empty: give an object for each sample.")
    texts = [[row.get(name) for name in names] for row in rows]
    return names, [["" if cell is None else str(cell) for cell in row] for row in texts]


def _delimiter(text: str) -> str:
    """The one of comma, semicolon and tab that the header has most of."""
    header = text.split("\n", 1)[0]
    return max(",;\t", key=header.count)
