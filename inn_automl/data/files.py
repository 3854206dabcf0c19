"""Files of a dataset by their path inside of it, wherever they lie."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import limits
from inn_automl.data.samples import bytes_text, composed

Parts = tuple[str, ...]

MAX_DEPTH = 8
"""Folders inside of folders. A wrapping folder, a split and a class are three; links that turn in
circles end here.
"""


class Content(Protocol):
    """What a file holds, wherever it lies. Threads may read at the same time, and again."""

    def read(self) -> bytes:
        """All of it. Raises DatasetError where it cannot be read."""

    def open(self) -> BinaryIO:
        """A stream that can be sought, for who needs the beginning only. Raises DatasetError."""

    def identity(self) -> list[str | int]:
        """What changes when the content does, ready for JSON."""


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Content that is in memory."""

    content: bytes

    def read(self) -> bytes:
        return self.content

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)

    def identity(self) -> list[str | int]:
        return [hashlib.sha256(self.content).hexdigest()]


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file on disk; `where` names its dataset in messages."""

    path: str
    where: str

    def read(self) -> bytes:
        with self.open() as file:
            try:
                check_file_size(os.fstat(file.fileno()).st_size, self._name(), self.where)
                return file.read()
            except OSError as error:
                raise self._unreadable(error) from None

    def open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise self._unreadable(error) from None

    def identity(self) -> list[str | int]:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise self._unreadable(error) from None
        return [self.path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]

    def _name(self) -> str:
        return os.path.basename(self.path)

    def _unreadable(self, error: OSError) -> DatasetFormatError:
        return DatasetFormatError(
            f"{self.path!r} cannot be read ({error.strerror}): make it readable."
        )


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One file."""

    parts: Parts
    """Folders and file name, from the top of the dataset."""
    content: Content

    def read(self) -> bytes:
        """The whole file; may be called again. Raises DatasetError where it cannot be read."""
        return self.content.read()

    @property
    def path(self) -> str:
        return "/".join(self.parts)

    @property
    def suffix(self) -> str:
        """Lower case, with its dot."""
        return os.path.splitext(self.parts[-1])[1].casefold()


@dataclass(frozen=True)
class FileListing:
    """All files and folders of a dataset, in no certain order."""

    files: tuple[DatasetFile, ...]
    folders: tuple[Parts, ...]
    where: str
    """Name of the dataset in messages."""


def list_folder(path: Path) -> FileListing:
    """The files below a folder. Links are followed: a user's own folder may be made of them.

    Raises:
        DatasetFormatError: a folder that cannot be listed, more files than the limit, or folders
            nested without end.
    """
    where = repr(str(path))
    files: list[DatasetFile] = []
    folders: list[Parts] = []
    unread: list[tuple[Path, Parts]] = [(path, ())]
    while unread:
        folder, above = unread.pop()
        try:
            with os.scandir(folder) as found:
                items = [(item.name, item.is_dir(), item.is_file()) for item in found]
        except OSError as error:
            raise DatasetFormatError(
                f"{str(folder)!r} cannot be read ({error.strerror}): make it readable."
            ) from None
        for name, is_folder, is_file in items:
            parts = (*above, composed(name))
            if is_folder:
                if len(parts) > MAX_DEPTH:
                    raise DatasetFormatError(
                        f"{where} nests folders deeper than {MAX_DEPTH}, at {'/'.join(parts)!r}: "
                        f"flatten them."
                    )
                folders.append(parts)
                unread.append((folder / name, parts))
            elif is_file:
                files.append(DatasetFile(parts, FileContent(os.path.join(folder, name), where)))
            else:
                raise DatasetFormatError(
                    f"{str(folder / name)!r} is a broken link or no plain file: remove it."
                )
        if len(files) + len(folders) > limits.MAX_FILES:
            raise DatasetFormatError(
                f"{where} holds more files than the limit of {limits.MAX_FILES:,}: use fewer."
            )
    return FileListing(tuple(files), tuple(folders), where)


def check_file_size(num_bytes: int, name: str, where: str) -> None:
    """Raises DatasetFormatError for a file that is larger than the limit."""
    if num_bytes > limits.MAX_FILE_BYTES:
        raise DatasetFormatError(
            f"{name!r} in {where} is larger than the limit of {bytes_text(limits.MAX_FILE_BYTES)} "
            f"a file: "
            "shrink or remove it."
        )
