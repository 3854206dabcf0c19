"""Files that are either there whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from inn_automl.core.errors import CorruptFileError, StorageError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` beside `path` and moves it there; a reader sees the old file or the new one,
    never a part.

    Raises:
        StorageError: the file could not be written; on a full disk the message says how many bytes
            were needed.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which others could not read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageError(
                f"no room for {str(path)!r}: {len(data)} bytes are needed; free that much or "
                f"choose another folder."
            ) from error
        raise StorageError(
            f"{str(path)!r} could not be written ({error.strerror or error}): choose a folder that "
            f"can be written to."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
            f"{str(path)!r} is not JSON ({error}): delete it to have it made anew."
        ) from error
