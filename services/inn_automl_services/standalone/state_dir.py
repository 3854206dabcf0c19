"""The home folder of a stack: who holds it, its secrets, its addresses.

coordinator.db  storage/  mlflow.db  mlartifacts/  ray/  logs/*.log
secrets.json    user_key, agent_key, ray_token; readable by the owner only
address.json    url, mlflow_url, ray_url; there while the stack is ready
processes.json  process id of each part and of the supervisor
up.lock         held by the supervisor, with its process id
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inn_automl.client.location import ADDRESS_FILE, SECRETS_FILE
from inn_automl.core.errors import InputError, StorageError
from inn_automl.core.storage import read_json, write_json

PROCESSES_FILE = "processes.json"
SOCKET_PATH_BYTES = 107
RAY_PATH_BYTES = 68
"""What Ray adds to its folder for its longest socket:
`/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store`.
"""
SHORT = Path("/tmp")
MAX_LOG_BYTES = 16 * 2**20
"""A log that has grown beyond this is put aside as NAME.log.1 at the next start."""
NUM_RAY_SESSIONS = 3
"""Folders of Ray's earlier runs that are kept, for their logs."""


@dataclass(frozen=True)
class Secrets:
    user_key: str
    agent_key: str
    ray_token: str


@dataclass(frozen=True)
class StateDir:
    """Paths under the folder, which is absolute."""

    folder: Path

    @property
    def database_url(self) -> str:
        """What INN_AUTOML_DATABASE_URL names, or else the embedded SQLite file."""
        return (
            os.environ.get("INN_AUTOML_DATABASE_URL")
            or f"sqlite:///{self.folder / 'coordinator.db'}"
        )

    @property
    def storage_url(self) -> str:
        """What INN_AUTOML_STORAGE_URL names, or else the embedded folder."""
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
        """What Ray's head remembers when it is started again."""
        return self.folder / "ray" / "gcs"

    def log(self, part: str) -> Path:
        return self.folder / "logs" / f"{part}.log"

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
        """The folder for Ray's sockets and logs: in the home, or where that is too long for a
        socket, under /tmp.

        Raises:
            StorageError: the one under /tmp belongs to somebody else.
        """
        own = self.folder / "ray" / "s"
        if len(os.fsencode(own)) + RAY_PATH_BYTES <= SOCKET_PATH_BYTES:
            own.mkdir(parents=True, exist_ok=True)
            return own
        short = SHORT / f"inn-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]}"
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
        """Process id of the supervisor that holds the home; None where none does."""
        try:
            with (self.folder / "up.lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return int((self.folder / "up.lock").read_text() or 0)
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the home for this process.

        Raises:
            InputError: another process holds it.
        """
        with (self.folder / "up.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise InputError(
                    f"a stack of --home {str(self.folder)!r} runs already, as process "
                    f"{lock.read().strip()}: "
                    f"stop it with `inn-automl down --home {self.folder}`, or give another --home."
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def write_processes(self, processes: dict[str, int]) -> None:
        write_json(self.processes, processes)
