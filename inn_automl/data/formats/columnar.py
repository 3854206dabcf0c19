"""Cells of Parquet and Arrow files: read a group of rows at a time, and a few groups kept."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, final

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data.files import FileContent, check_file_size
from inn_automl.data.samples import bytes_text

if TYPE_CHECKING:
    import pyarrow

GROUPS_KEPT = 3
KEPT_BYTES = 2**29
"""Of several groups; the one that is read is kept whatever it takes."""
MAX_GROUP_BYTES = 2**29
"""Rows are read by groups; one that is larger than this would not leave memory bounded."""


class RowGroups(ABC):
    """A file whose rows come in groups.

    Attributes:
        path: of the file.
        where: its name in messages.
        schema: of its columns.
        counts: rows of each group.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._lock = threading.Lock()
        self.schema: pyarrow.Schema
        self.counts: Sequence[int]

    @abstractmethod
    def _read(self, group: int, column: str) -> Any:
        """A column of a group, a pyarrow array."""

    def column(self, name: str) -> list[Any]:
        """All values of a column of small ones."""
        values: list[Any] = []
        for group in range(len(self.counts)):
            values += self._read(group, name).to_pylist()
        return values

    def cell(self, group: int, row: int, column: str) -> Any:
        """One value."""
        with self._lock:
            key = group, column
            if key not in self._kept:
                try:
                    self._kept[key] = self._read(group, column)
                except (OSError, ValueError) as error:
                    raise DatasetFormatError(
                        f"{self.where} is damaged in its row group {group} ({error!s:.120}): write "
                        "it again."
                    ) from None
                while len(self._kept) > 1 and (
                    len(self._kept) > GROUPS_KEPT
                    or sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES
                ):
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key][row].as_py()

    def features(self) -> Mapping[str, Mapping[str, Any]]:
        """What Hugging Face's `datasets` wrote of each column."""
        try:
            metadata = json.loads((self.schema.metadata or {})[b"huggingface"])
            features = metadata["info"]["features"]
        except (KeyError, TypeError, ValueError):
            return {}
        if not isinstance(features, dict):
            return {}
        return {name: one for name, one in features.items() if isinstance(one, dict)}


@final
class ParquetGroups(RowGroups):
    """A Parquet file.

    Raises:
        DatasetFormatError: it cannot be read, or has a row group that is too large.
    """

    def __init__(self, path: Path, where: str) -> None:
        super().__init__(path, where)
        import pyarrow
        from pyarrow import parquet

        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DatasetFormatError(
                f"{where} cannot be read as Parquet ({error!s:.120}): write it again."
            ) from None
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        self.counts = [group.num_rows for group in groups]
        largest = max((group.total_byte_size for group in groups), default=0)
        if largest > MAX_GROUP_BYTES:
            raise DatasetFormatError(
                f"{where} has a row group of {bytes_text(largest)}, more than the limit of "
                f"{bytes_text(MAX_GROUP_BYTES)}: write it with smaller ones (row_group_size=1000)."
            )

    def _read(self, group: int, column: str) -> Any:
        return self._file.read_row_group(group, columns=[column]).column(0).combine_chunks()


@final
class ArrowGroups(RowGroups):
    """An Arrow file in the stream format, as `Dataset.save_to_disk` of `datasets` writes.

    Raises:
        DatasetFormatError: it cannot be read.
    """

    def __init__(self, path: Path, where: str) -> None:
        super().__init__(path, where)
        import pyarrow

        self._offsets: list[int] = []
        counts: list[int] = []
        try:
            # Mapped, the walk over the messages touches their headers alone.
            with (
                pyarrow.memory_map(str(path)) as file,
                pyarrow.ipc.open_stream(file) as stream,
            ):
                self.schema = stream.schema
                start = file.tell()
                for batch in stream:
                    self._offsets.append(start)
                    counts.append(batch.num_rows)
                    start = file.tell()
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DatasetFormatError(
                f"{where} cannot be read as an Arrow stream ({error!s:.120}): write it again."
            ) from None
        self.counts = counts

    def _read(self, group: int, column: str) -> Any:
        import pyarrow

        with pyarrow.OSFile(str(self.path)) as file:
            file.seek(self._offsets[group])
            message = pyarrow.ipc.read_message(file)
            return pyarrow.ipc.read_record_batch(message, self.schema).column(column)


@dataclass(frozen=True, slots=True)
class Cell:
    """The bytes in one cell, which may be the field `bytes` of a struct."""

    groups: RowGroups
    group: int
    row: int
    column: str

    def read(self) -> bytes:
        value = self.groups.cell(self.group, self.row, self.column)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DatasetFormatError(
                f"row {self.row} of group {self.group} of {self.groups.where} has no bytes in "
                f"{self.column!r}: fill them in or remove the row."
            )
        check_file_size(len(content), f"row {self.row} of group {self.group}", self.groups.where)
        return content

    def open(self) -> BinaryIO:
        return io.BytesIO(self.read())

    def identity(self) -> list[str | int]:
        source = FileContent(str(self.groups.path), self.groups.where).identity()
        column = hashlib.sha256(self.column.encode()).hexdigest()[:8]
        return [*source, self.group, self.row, column]
