"""TAR archives that strangers made: listed once, then read where a member lies.

A compressed one is expanded into the cache first, for it cannot be read in the middle; every byte
that comes out is counted.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from inn_automl.core.errors import DatasetFormatError, UnsafeArchiveError
from inn_automl.core.home import cache_root
from inn_automl.core.locking import file_lock
from inn_automl.core.storage import replacing
from inn_automl.data import limits
from inn_automl.data.cache.folder import keep_folder, key_of, make_room
from inn_automl.data.files import DatasetFile, FileContent, FileListing, Parts, check_file_size
from inn_automl.data.samples import bytes_text, composed

CHUNK_BYTES = 2**20
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_EXPANDED = "content.tar"
_UNREADABLE = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


def is_tar(path: Path) -> bool:
    """Whether a file is named like a TAR archive."""
    return path.name.casefold().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """The name of an archive without its suffixes."""
    name = path.name
    suffix = max((one for one in SUFFIXES if name.casefold().endswith(one)), key=len, default="")
    return name[: len(name) - len(suffix)] or name


def list_tar(path: Path) -> FileListing:
    """The files of a TAR archive, plain or compressed by gzip, bzip2 or xz.

    Raises:
        DatasetFormatError: no such archive, or a damaged one.
        UnsafeArchiveError: a member that leaves the archive's folder, a link or a device, or more
            files or bytes than `limits` allows.
        StorageError: the cache cannot be written.
    """
    where = repr(str(path))
    plain = path if path.name.casefold().endswith(".tar") else _expanded(path, where)
    entries: dict[Parts, DatasetFile] = {}
    folders: list[Parts] = []
    try:
        with tarfile.open(plain, "r:") as archive:
            size = plain.stat().st_size
            for member in archive:
                parts = _safe_parts(member, where)
                if member.isdir():
                    folders += [parts] if parts else []
                    continue
                if member.offset_data + member.size > size:
                    raise DatasetFormatError(
                        f"{where} ends within {member.name!r}: it is cut short; copy it again."
                    )
                if parts in entries or not parts:
                    raise DatasetFormatError(f"{where} holds {member.name!r} twice: pack it again.")
                content = _Member(str(plain), where, member.name, member.offset_data, member.size)
                entries[parts] = DatasetFile(parts, content)
                if len(entries) > limits.MAX_FILES:
                    raise UnsafeArchiveError(
                        f"{where} holds more files than the limit of {limits.MAX_FILES:,}: split "
                        "it into shards."
                    )
    except (DatasetFormatError, UnsafeArchiveError):
        raise
    except _UNREADABLE as error:
        raise DatasetFormatError(
            f"{where} cannot be read as a TAR archive ({error}): pack it again."
        ) from None
    return FileListing(tuple(entries.values()), tuple(folders), where)


@dataclass(frozen=True, slots=True)
class _Member:
    """The content of one member."""

    path: str
    where: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        check_file_size(self.size, self.name, self.where)
        try:
            with open(self.path, "rb") as file:
                content = os.pread(file.fileno(), self.size, self.offset)
        except OSError as error:
            raise DatasetFormatError(
                f"{self.where} cannot be read ({error.strerror}): make it readable."
            ) from None
        if len(content) != self.size:
            raise DatasetFormatError(f"{self.name!r} in {self.where} is cut short: pack it again.")
        return content

    def open(self) -> BinaryIO:
        return io.BytesIO(self.read())

    def identity(self) -> list[str | int]:
        return [*FileContent(self.path, self.where).identity(), self.offset, self.size]


def _safe_parts(member: tarfile.TarInfo, where: str) -> Parts:
    name = member.name
    parts = tuple(composed(part) for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or re.match(r"[A-Za-z]:\\", name) or ".." in parts:
        raise UnsafeArchiveError(
            f"{where} holds {name!r}, which leaves the archive's folder: pack it with relative "
            "paths."
        )
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UnsafeArchiveError(
            f"{where} holds {name!r}, a link, a device or a sparse file: pack plain files only."
        )
    return parts


def _expanded(path: Path, where: str) -> Path:
    """The archive without its compression, in the cache."""
    root = cache_root()
    archive_bytes = path.stat().st_size
    folder = root / key_of({"expanded": FileContent(str(path), where).identity()})
    target = folder / _EXPANDED
    with file_lock(root / f"{folder.name}.lock", timeout_s=None):
        if not target.exists():
            make_room(root, archive_bytes, keep=folder, what=where)
            with replacing(target) as temporary, temporary.open("wb") as file:
                _expand(path, file, archive_bytes, where)
        keep_folder(folder)
    return target


def _expand(path: Path, target: BinaryIO, archive_bytes: int, where: str) -> None:
    import bz2
    import gzip

    openers: dict[str, Callable[..., Any]] = {
        **dict.fromkeys((".gz", ".tgz"), gzip.open),
        **dict.fromkeys((".bz2", ".tbz2"), bz2.open),
    }
    opener = openers.get(path.suffix.casefold(), lzma.open)
    limit = min(
        limits.MAX_EXPANDED_BYTES, max(limits.RATIO_FREE_BYTES, limits.MAX_RATIO * archive_bytes)
    )
    num_bytes = 0
    try:
        with opener(path, "rb") as stream:
            while True:
                chunk = stream.read(CHUNK_BYTES)
                if not chunk:
                    return
                num_bytes += len(chunk)
                if num_bytes > limit:
                    raise UnsafeArchiveError(
                        f"{where} expands to {bytes_text(num_bytes)} or more, beyond the limit of "
                        f"{bytes_text(limit)} for its size: give the files as a folder if they are "
                        "what they should be."
                    )
                target.write(chunk)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DatasetFormatError(
            f"{where} cannot be expanded ({error}): it is damaged or cut short; copy it again."
        ) from None
