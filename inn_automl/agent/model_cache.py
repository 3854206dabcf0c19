"""Models that a device agent has downloaded: by hash, verified, of limited size together."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from inn_automl.api.measurements import ModelFile
from inn_automl.core.errors import InnAutomlError, StorageError
from inn_automl.core.storage import receive, sha256_of

Download = Callable[[str], Iterable[bytes]]
"""The bytes of the model with a hash."""

_ABANDONED_S = 3600.0
"""A download that has not grown for so long has no agent any more."""


class ModelCache:
    """A folder of ONNX files named by their hash; several agents may share it.

    Args:
        max_bytes: size beyond which the least recently used files are deleted; files that are
            measured now always have room.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def collect(self, models: Mapping[str, ModelFile], download: Download) -> dict[str, Path]:
        """Paths of all models; those that are missing are downloaded.

        Raises:
            CorruptFileError: a downloaded model has another hash.
            StorageError: there is no room, or the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            paths = {name: self._path(model.sha256) for name, model in models.items()}
            self._make_room(models)
            for model in models.values():
                path = self._path(model.sha256)
                if not _is_whole(path, model.sha256):
                    self._fetch(path, model, download)
                used_ns = time.time_ns()  # finer than the file system's own clock
                os.utime(path, ns=(used_ns, used_ns))
            return paths
        except InnAutomlError:  # some of them are OSErrors, too
            raise
        except OSError as error:
            raise StorageError(
                f"the models cannot be cached in {str(self._folder)!r} "
                f"({error.strerror or error}): "
                f"free some room, "
                "or start the agent with another --cache."
            ) from error

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.onnx"

    def _fetch(self, path: Path, model: ModelFile, download: Download) -> None:
        chunks = _up_to(model.size_bytes, download(model.sha256))
        receive(path, chunks, sha256=model.sha256, what=f"the model {model.sha256}")

    def _make_room(self, models: Mapping[str, ModelFile]) -> None:
        """Deletes abandoned downloads and the least recently used files. Another agent may do so
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


def _up_to(max_bytes: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks until there are more bytes than that: a file of another size is not read whole."""
    num_bytes = 0
    for chunk in chunks:
        yield chunk
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            return


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except FileNotFoundError:
        return False
