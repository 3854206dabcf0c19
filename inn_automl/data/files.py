"""Files of a dataset by their path inside of it, wherever they lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from inn_automl.core.errors import DatasetFormatError
from inn_automl.data import limits
from inn_automl.data.samples import bytes_text, composed

Parts = tuple[str, ...]

MAX_DEPTH = 8
"""Folders inside of folders. A wrapping folder, a split and a class are three; links that turn in
circles end here.
"""


@dataclass(frozen=True)
class DatasetFile:
    """One file."""

    parts: Parts
    """Folders and file name, from the top of the dataset."""
    read: Callable[[], bytes]
    """Reads the whole file; may be called again. Raises DatasetError where it cannot be read."""

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
                files.append(DatasetFile(parts, partial(_read_file, folder / name, where)))
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


def _read_file(path: Path, where: str) -> bytes:
    try:
        check_file_size(path.stat().st_size, path.name, where)
        return path.read_bytes()
    except OSError as error:
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read ({error.strerror}): make it readable."
        ) from None
