"""Files that are either there whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from inn_automl.core.errors import CorruptFileError, InnAutomlError, StorageError

T = TypeVar("T")
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def replacing(path: Path, *, num_bytes: int | None = None, mode: int = 0o644) -> Iterator[Path]:
    """Gives a temporary file beside `path` to write to, and moves it to `path` after the block.

    A reader sees the old file or the new one, never a part. If the block raises, the old file
    stays and the temporary one is deleted.

    Args:
        num_bytes: how many bytes are written, for the message on a full disk; None: not known.
        mode: permissions of the file. Until it is moved, only its owner may read it.

    Raises:
        StorageError: the file could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)  # mkstemp gives 0600, which others could not read
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except InnAutomlError:  # some of them are OSErrors, too, and say more
        raise
    except OSError as error:
        raise _not_written(path, error, num_bytes) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def receive(path: Path, chunks: Iterable[bytes], *, sha256: str | None, what: str) -> None:
    """Writes what comes piece by piece to `path`, which appears whole and verified or not at all.

    Args:
        sha256: what the content must hash to; None: not verified.
        what: the name of the content, for the message.

    Raises:
        CorruptFileError: the content has another hash.
        StorageError: the file could not be written.
    """
    digest = hashlib.sha256()
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise CorruptFileError(
                f"{what} came damaged: its hash differs from {sha256}, fetch it again."
            )


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file; a reader sees the old one or the new one, never a part.

    Raises:
        StorageError: the file could not be written; on a full disk the message says how many bytes
            were needed.
    """
    with replacing(path, num_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value; a reader sees the old file or the new one.

    Raises:
        StorageError: the file could not be written.
    """
    write_atomically(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: there is none.
        CorruptFileError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(
            f"{str(path)!r} is not JSON ({error}): delete it to have it made again."
        ) from error


def load_or_make(path: Path, kind: Any, make: Callable[[], T]) -> T:
    """Reads a value from a JSON file; makes the value and writes the file first if there is none.

    Args:
        kind: type of the value: a dataclass, a pydantic model or a container of them.
        make: makes the value.

    Raises:
        CorruptFileError: the file holds no value of the type.
        StorageError: the file could not be written.
    """
    values = TypeAdapter[T](kind)
    if not path.exists():
        write_json(path, values.dump_python(make(), mode="json"))
    try:
        return values.validate_python(read_json(path))
    except ValidationError as error:
        raise CorruptFileError(
            f"{str(path)!r} does not hold what a job writes there ({error}): delete it to have it "
            "made again."
        ) from error


def reuse_files(source: Path | None, target: Path, names: Sequence[str]) -> bool:
    """Copies files from one folder to another, the last one last, unless the last is there.

    Args:
        source: folder to copy from, if it has the last one; None: there is none.
        names: paths relative to both folders.

    Returns:
        Whether the last one is in `target` now.
    """
    last = names[-1]
    if not (target / last).exists() and source is not None and (source / last).exists():
        for name in names:
            write_atomically(target / name, (source / name).read_bytes())
    return (target / last).exists()


def _not_written(path: Path, error: OSError, num_bytes: int | None) -> StorageError:
    if error.errno in _DISK_FULL:
        needed = "" if num_bytes is None else f": {num_bytes} bytes are needed"
        return StorageError(
            f"no room for {str(path)!r}{needed}: free some, or choose another folder."
        )
    return StorageError(
        f"{str(path)!r} could not be written ({error.strerror or error}): choose a folder that can "
        "be written to."
    )
