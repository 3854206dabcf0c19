"""Keys and their secrets, and the cache of those that this process has seen lately."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass

from sqlalchemy.orm import Session

from inn_automl.api.access import Role
from inn_automl.core.errors import RateLimitError
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import ApiKeyRow

SECRET_PREFIX = "inn_"
CACHED_S = 10.0
"""A revoked key may still be accepted for this long by a process that saw it just before."""


@dataclass(frozen=True)
class Caller:
    """The key that a request came with."""

    key_id: str
    project_id: str
    project: str
    role: Role


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    session: Session, *, project_id: str, name: str, role: Role
) -> tuple[ApiKeyRow, str]:
    """A new key and its secret, which is not stored."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    key = ApiKeyRow(
        id=new_id("key"),
        project_id=project_id,
        name=name,
        role=role.value,
        prefix=secret[:12],
        hash=hash_secret(secret),
        created_at=now(),
        last_used_at=None,
        revoked_at=None,
    )
    session.add(key)
    return key, secret


class KeyRing:
    """Keys that this process looked up lately, and the number of requests of each this minute."""

    def __init__(self, requests_per_minute: int) -> None:
        self._limit = requests_per_minute
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Caller]] = {}
        self._spent: dict[str, tuple[int, int]] = {}

    def recall(self, hashed: str) -> Caller | None:
        with self._lock:
            found = self._known.get(hashed)
        return found[1] if found and time.monotonic() - found[0] < CACHED_S else None

    def remember(self, hashed: str, caller: Caller) -> None:
        with self._lock:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[hashed] = (time.monotonic(), caller)

    def forget(self) -> None:
        with self._lock:
            self._known.clear()

    def spend(self, key_id: str) -> None:
        """Counts a request.

        Raises:
            RateLimitError: the key has used up its requests of this minute.
        """
        minute, second = divmod(int(time.time()), 60)
        with self._lock:
            started, count = self._spent.get(key_id, (minute, 0))
            count = count + 1 if started == minute else 1
            self._spent[key_id] = (minute, count)
        if count > self._limit:
            raise RateLimitError(
                f"more than {self._limit} requests of one key in a minute: wait {60 - second} s.",
                retry_after_s=60 - second,
            )
