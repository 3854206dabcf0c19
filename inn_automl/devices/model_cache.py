"""Models that a device agent has downloaded: by hash, verified, and not more bytes than allowed."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from inn_automl.api.measurements import ModelFile
from inn_automl.errors import CorruptFileError, StorageError

Download = Callable[[str], Iterable[bytes]]
"""The bytes of the model with a hash."""


class ModelCache:
    """A folder of ONNX files named by their hash.

    Args:
        max_bytes: what was used longest ago goes when there is more; what is measured now always has room.
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
                f"the models cannot be kept in {str(self._folder)!r} ({error.strerror or error}): free some room, "
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
        """Drops what is left of downloads, and what was used longest ago."""
        for partial in self._folder.glob(".*.part"):
            partial.unlink(missing_ok=True)
        wanted = {model.sha256: model.size_bytes for model in models.values()}
        others = [path for path in self._folder.glob("*.onnx") if path.stem not in wanted]
        sizes = {path: path.stat() for path in others}
        total = sum(wanted.values()) + sum(stat.st_size for stat in sizes.values())
        for path in sorted(others, key=lambda path: sizes[path].st_mtime_ns):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= sizes[path].st_size


def _hash(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
