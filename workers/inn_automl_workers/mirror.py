"""A local copy of a folder in an object store: pulled first, pushed as it changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inn_automl.core.errors import StorageError
from inn_automl.core.object_store import ObjectStore
from inn_automl_workers.processes import log

EVERY_S = 30.0
FOREIGN = ("log.txt", "measuring-models/")
"""Files that others put beside the job's."""


class Mirror:
    """A folder and the store that keeps it.

    Files are pushed in the order in which they were last changed: a file that says that others are
    complete was written after them, and is in the store only once they are.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._known: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def pull(self) -> None:
        """Copies all files of the store to the folder.

        Raises:
            StorageError: the store is away, or there is no room here.
        """
        with self._lock:
            for name in self._store.files():
                if _is_mirrored(name):
                    self._store.get(name, self._folder / name)
            self._known = dict(self._present())

    def push(self) -> None:
        """Copies the files that changed since the last time to the store, and deletes the deleted
        ones there.

        Raises:
            StorageError: the store is away or full; what was not pushed is pushed the next time.
        """
        with self._lock:
            present = self._present()
            for name, stamp in present:
                if self._known.get(name) != stamp and (self._folder / name).exists():
                    self._store.put(name, self._folder / name)
                    self._known[name] = stamp
            for name in self._known.keys() - {name for name, _ in present}:
                self._store.delete(name)
                del self._known[name]

    @contextmanager
    def pushing(self, every_s: float = EVERY_S) -> Iterator[None]:
        """Pushes from a thread while the block runs, and at its end, however it ends."""
        done = threading.Event()

        def work() -> None:
            while not done.wait(every_s):
                try:
                    self.push()
                except StorageError as error:
                    log(f"to be pushed again: {error}")

        thread = threading.Thread(target=work, name="mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.push()

    def _present(self) -> list[tuple[str, tuple[int, int]]]:
        """Files with their stamps (nanoseconds, bytes), in the order of their last change."""
        found = []
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder).as_posix()
            if _is_mirrored(name) and path.is_file():
                about = path.stat()
                found.append((name, (about.st_mtime_ns, about.st_size)))
        return sorted(found, key=lambda item: item[1][0])


def _is_mirrored(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and not name.endswith(".part") and not name.startswith(FOREIGN)
