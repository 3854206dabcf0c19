"""Models that a device agent has downloaded: by hash, verified, and not more bytes than allowed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from inn_automl.api.measurements import ModelFile
from inn_automl.core.errors import CorruptFileError, StorageError

Download = Callable[[str], Iterable[bytes]]
"""The bytes of the model with a hash."""

_ABANDONED_S = 3600.0
"""A download that has not grown for so long has no agent any more."""


class ModelCache:
    """A folder of ONNX files named by their hash; several agents may share it.

    Args:
        max_bytes: what was used longest ago goes when there is more; what is measured now always
            has room.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def collect(self, models: Mapping[str, ModelFile], download: Download) -> dict[str, Path]:
        """Paths of all models, downloaded where they are not there yet.

        Raises:
            CorruptFileError: what came is not what its hash says.
            StorageError: there is no room, or the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            paths = {name: self._path(model.sha256) for name, model in models.items()}
            self._make_room(models)
            for model in models.values():
                path = self._path(model.sha256)
                if _hash(path) != model.sha256:
                    self._fetch(path, model, download)
                used_ns = time.time_ns()  # finer than the file system's own clock
                os.utime(path, ns=(used_ns, used_ns))
            return paths
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(
                f"the models cannot be kept in {str(self._folder)!r} ({error.strerror or error}): "
                f"free some room, "
                "or start the agent with another --cache."
            ) from error

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.onnx"

    def _fetch(self, path: Path, model: ModelFile, download: Download) -> None:
        digest, size_bytes = hashlib.sha256(), 0
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in download(model.sha256):
                    digest.update(chunk)
                    size_bytes += len(chunk)
                    if size_bytes > model.size_bytes:
                        break
                    file.write(chunk)
            if digest.hexdigest() != model.sha256:
                raise CorruptFileError(f"the model {model.sha256} came damaged: its hash differs.")
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _make_room(self, models: Mapping[str, ModelFile]) -> None:
        """Drops what was left of downloads, and what was used longest ago. Another agent may do so
        at the same time.
        """
        for partial, stat in self._found(".*.part").items():
            if time.time() - stat.st_mtime > _ABANDONED_S:
                partial.unlink(missing_ok=True)
        wanted = {model.sha256: model.size_bytes for model in models.values()}
        others = {
            path: stat for path, stat in self._found("*.onnx").items() if path.stem not in wanted
        }
        total = sum(wanted.values()) + sum(stat.st_size for stat in others.values())
        for path in sorted(others, key=lambda path: others[path].st_mtime_ns):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= others[path].st_size

    def _found(self, pattern: str) -> dict[Path, os.stat_result]:
        found = {}
        for path in self._folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat()
        return found


def _hash(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
