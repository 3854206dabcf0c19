"""The state folder of a stack (`--home`): its holder, secrets and addresses.

coordinator.db  storage/  mlflow.db  mlartifacts/  ray/  logs/*.log
secrets.json    user_key, agent_key, ray_token; readable by the owner only
address.json    url, mlflow_url, ray_url; there while the stack is ready
processes.json  process id of each process of the stack and of the supervisor
up.lock         held by the supervisor
up.pid          process id of the supervisor that holds the lock
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from inn_automl.client.location import ADDRESS_FILE, SECRETS_FILE
from inn_automl.core.errors import InputError, StorageError
from inn_automl.core.locking import file_lock
from inn_automl.core.storage import read_json, write_atomically, write_json

PROCESSES_FILE = "processes.json"
SOCKET_PATH_BYTES = 107
RAY_PATH_BYTES = 68
"""Bytes that Ray adds to its folder's path for its longest socket:
`/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store`.
"""
MAX_LOG_BYTES = 16 * 2**20
"""A log that has grown beyond this is put aside as NAME.log.1 at the next start."""
LOCK_TIMEOUT_S = 1.0
NUM_RAY_SESSIONS = 3
"""Folders of Ray's earlier runs that are kept, for their logs."""


@dataclass(frozen=True)
class Secrets:
    user_key: str
    agent_key: str
    ray_token: str


@dataclass(frozen=True)
class StateDir:
    """Paths under a folder.

    Attributes:
        folder: an absolute path.
        short_root: where Ray's sockets go if the folder's path is too long for one.
    """

    folder: Path
    short_root: Path = Path("/tmp")

    @property
    def database_url(self) -> str:
        """INN_AUTOML_DATABASE_URL, or the embedded SQLite file where that is not set."""
        return (
            os.environ.get("INN_AUTOML_DATABASE_URL")
            or f"sqlite:///{self.folder / 'coordinator.db'}"
        )

    @property
    def storage_url(self) -> str:
        """INN_AUTOML_STORAGE_URL, or the embedded folder where that is not set."""
        return os.environ.get("INN_AUTOML_STORAGE_URL") or self.storage.as_uri()

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def processes(self) -> Path:
        return self.folder / PROCESSES_FILE

    @property
    def address(self) -> Path:
        return self.folder / ADDRESS_FILE

    @property
    def secrets(self) -> Path:
        return self.folder / SECRETS_FILE

    @property
    def gcs(self) -> Path:
        """State that Ray's head reads back when it is started again."""
        return self.folder / "ray" / "gcs"

    def log(self, process: str) -> Path:
        return self.folder / "logs" / f"{process}.log"

    def make(self) -> None:
        """Makes the folders.

        Raises:
            StorageError: they cannot be made.
        """
        try:
            for folder in (self.storage, self.gcs, self.folder / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"--home {str(self.folder)!r} cannot be written ({error.strerror}): give another "
                f"folder."
            ) from error

    def ray_sessions(self) -> Path:
        """The folder for Ray's sockets and logs: in the state folder, or under `short_root` where
        the path would be too long for a socket.

        Raises:
            StorageError: the one under `short_root` belongs to somebody else.
        """
        own = self.folder / "ray" / "s"
        if len(os.fsencode(own)) + RAY_PATH_BYTES <= SOCKET_PATH_BYTES:
            own.mkdir(parents=True, exist_ok=True)
            return own
        short = self.short_root / f"inn-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]}"
        short.mkdir(mode=0o700, exist_ok=True)
        status = short.lstat()
        if (
            status.st_uid != os.getuid()
            or not stat.S_ISDIR(status.st_mode)
            or status.st_mode & 0o077
        ):
            raise StorageError(
                f"{str(short)!r} is not a folder of this user alone: remove it, or choose a short "
                f"--home."
            )
        sessions = short / "s"  # Ray lets everybody into its own folder
        sessions.mkdir(exist_ok=True)
        return sessions

    def clean(self) -> None:
        """Puts large logs aside and deletes what Ray left of all but its latest runs. Nothing of
        the stack may run.
        """
        for log in (self.folder / "logs").glob("*.log"):
            if log.stat().st_size > MAX_LOG_BYTES:
                log.replace(log.with_name(f"{log.name}.1"))
        ended = sorted(path for path in self.ray_sessions().glob("session_2*") if path.is_dir())
        for session in ended[:-NUM_RAY_SESSIONS]:
            shutil.rmtree(session, ignore_errors=True)

    def read_secrets(self) -> Secrets | None:
        """The secrets; None before the first start.

        Raises:
            CorruptFileError: the file is damaged.
        """
        try:
            found = read_json(self.secrets)
            return Secrets(found["user_key"], found["agent_key"], found["ray_token"])
        except (FileNotFoundError, KeyError, TypeError):
            return None

    def supervisor(self) -> int | None:
        """Process id of the supervisor that holds the folder; None where none does."""
        if not self._lock.exists():
            return None
        try:
            with file_lock(self._lock):
                return None
        except TimeoutError:
            return self._holder()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            InputError: another process holds it.
        """
        with ExitStack() as stack:
            try:
                # Not at once: `down` takes the lock for a moment when it looks for a supervisor.
                stack.enter_context(file_lock(self._lock, timeout_s=LOCK_TIMEOUT_S))
            except TimeoutError:
                raise InputError(
                    f"a stack of --home {str(self.folder)!r} runs already, as process "
                    f"{self._holder()}: stop it with `inn-automl down --home {self.folder}`, or "
                    f"give another --home."
                ) from None
            write_atomically(self._pid, str(os.getpid()).encode())
            yield

    @property
    def _lock(self) -> Path:
        return self.folder / "up.lock"

    @property
    def _pid(self) -> Path:
        return self.folder / "up.pid"

    def _holder(self) -> int | None:
        """Process id that the holder of the lock has written; None before it has."""
        try:
            return int(self._pid.read_text())
        except FileNotFoundError:
            return None

    def write_processes(self, processes: dict[str, int]) -> None:
        write_json(self.processes, processes)
