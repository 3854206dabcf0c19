"""ZIP archives that strangers made: read member by member in memory, never extracted to disk.

What an archive says of itself is checked first; then every byte that really comes out of it is
counted, since the sizes in a ZIP bomb's headers lie (Fifield, A better zip bomb, WOOT 2019).
"""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from inn_automl.core.errors import DatasetError, DatasetFormatError, UnsafeArchiveError
from inn_automl.data import limits
from inn_automl.data.files import DatasetFile, FileContent, FileListing, check_file_size
from inn_automl.data.samples import bytes_text, composed

CHUNK_BYTES = 2**20
UTF8_NAME_FLAG = 0x800
ENCRYPTED_FLAG = 0x1

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)


def open_archive(path: Path) -> FileListing:
    """The files of a ZIP archive, which stays open for as long as one of them is kept.

    Raises:
        DatasetFormatError: not a ZIP archive, a damaged or an encrypted one.
        UnsafeArchiveError: a member that leaves the archive's folder (an absolute path, `..`, a
            link), or an archive that holds more files or expands further than `limits` allows, by
            its headers or when it is unpacked.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise DatasetFormatError(
            f"{str(path)!r} cannot be read as a ZIP archive ({error}): pack it again."
        ) from None
    return _Reader(archive, path).listing()


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive, self.path, self.where = archive, path, repr(str(path))
        self.archive_bytes = path.stat().st_size
        self.lock = threading.Lock()
        self.expanded_bytes = 0
        self.counted: set[int] = set()

    def listing(self) -> FileListing:
        infos = self.archive.infolist()
        if len(infos) > limits.MAX_FILES:
            raise UnsafeArchiveError(
                f"{self.where} holds {len(infos):,} files, more than the limit of "
                f"{limits.MAX_FILES:,}: split it."
            )
        self._check_expanded(sum(info.file_size for info in infos))
        entries, folders = {}, []
        for info in infos:
            parts = self._safe_parts(info)
            if info.is_dir():
                folders += [parts] if parts else []
                continue
            if info.flag_bits & ENCRYPTED_FLAG:
                raise DatasetFormatError(f"{self.where} is encrypted: pack it without a password.")
            if parts in entries or not parts:
                raise DatasetFormatError(
                    f"{self.where} holds {info.filename!r} twice: pack it again."
                )
            entries[parts] = DatasetFile(parts, _Member(self, info))
        return FileListing(tuple(entries.values()), tuple(folders), self.where)

    def _check_expanded(self, num_bytes: int) -> None:
        if num_bytes > limits.MAX_EXPANDED_BYTES:
            raise UnsafeArchiveError(
                f"{self.where} expands to {bytes_text(num_bytes)} or more, beyond the limit of "
                f"{bytes_text(limits.MAX_EXPANDED_BYTES)}: use fewer or smaller files."
            )
        if num_bytes > max(limits.RATIO_FREE_BYTES, limits.MAX_RATIO * self.archive_bytes):
            raise UnsafeArchiveError(
                f"{self.where} expands to {bytes_text(num_bytes)} or more, over {limits.MAX_RATIO} "
                f"times its size of "
                f"{bytes_text(self.archive_bytes)}: give the files as a folder if they are what "
                f"they should be."
            )

    def _safe_parts(self, info: zipfile.ZipInfo) -> tuple[str, ...]:
        name = _decoded_name(info).replace("\\", "/")
        parts = tuple(composed(part) for part in name.split("/") if part not in ("", "."))
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
            raise UnsafeArchiveError(
                f"{self.where} holds {name!r}, which leaves the archive's folder: pack it with "
                f"relative paths."
            )
        file_type = stat.S_IFMT(info.external_attr >> 16)
        if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnsafeArchiveError(
                f"{self.where} holds {name!r}, a link or a device: pack plain files only."
            )
        return parts

    def read(self, info: zipfile.ZipInfo) -> bytes:
        with self.lock:
            is_first_read = info.header_offset not in self.counted
            self.counted.add(info.header_offset)
        content = bytearray()
        try:
            # An archive counts its open members without a lock of its own.
            with self.lock:
                stream = self.archive.open(info)
            try:
                while chunk := stream.read(CHUNK_BYTES):
                    content += chunk
                    check_file_size(len(content), info.filename, self.where)
                    if is_first_read:
                        with self.lock:
                            self.expanded_bytes += len(chunk)
                        self._check_expanded(self.expanded_bytes)
            finally:
                with self.lock:
                    stream.close()
        except DatasetError:
            raise
        except _UNREADABLE as error:
            raise DatasetFormatError(
                f"{info.filename!r} in {self.where} is damaged ({error}): pack the archive again."
            ) from None
        return bytes(content)


@dataclass(frozen=True, slots=True)
class _Member:
    """The content of one member."""

    reader: _Reader
    info: zipfile.ZipInfo

    def read(self) -> bytes:
        return self.reader.read(self.info)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.read())

    def identity(self) -> list[str | int]:
        # The checksum is the archive's claim; reading a member verifies it.
        archive = FileContent(str(self.reader.path), self.reader.where).identity()
        return [*archive, self.info.CRC, self.info.file_size, self.info.header_offset]


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """The member's name; macOS and others write UTF-8 without its flag, which then reads as code
    page 437.
    """
    if info.flag_bits & UTF8_NAME_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
