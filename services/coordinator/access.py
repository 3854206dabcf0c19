"""Who asks: keys, roles and rate limits. An endpoint takes `User`, `Admin` or `Agent` as an argument."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.orm import Session

from inn_automl.api.access import Role
from services.coordinator.context import Context, get_context
from services.coordinator.db.ids import new_id
from services.coordinator.db.session import now
from services.coordinator.db.tables import ApiKey, Project
from services.coordinator.faults import AuthenticationError, ForbiddenError, RateLimitError

SECRET_PREFIX = "inn_"
LAST_USED_STEP = timedelta(minutes=1)
"""`last_used_at` is this coarse, so that reading does not become writing."""
CACHED_S = 10.0
"""A revoked key may still be accepted for this long by a process that saw it just before."""

_bearer = HTTPBearer(auto_error=False, description="An API key, `inn_...`.")


@dataclass(frozen=True)
class Caller:
    """The key that a request came with."""

    key_id: str
    project_id: str
    project: str
    role: Role


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(session: Session, *, project_id: str, name: str, role: Role) -> tuple[ApiKey, str]:
    """A new key and its secret, which is not kept."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
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
    """Keys looked up lately, and how much each asked for in the running minute, of this process."""

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
            RateLimitError: the key has asked for more than its share of this minute.
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


def authenticate(
    request: Request,
    context: Annotated[Context, Depends(get_context)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The caller behind the request's key.

    Raises:
        AuthenticationError: no key, an unknown or a revoked one.
        RateLimitError: too many requests.
    """
    if credentials is None:
        raise AuthenticationError("no key was given: send it as `Authorization: Bearer inn_...`.")
    hashed = hash_secret(credentials.credentials)
    caller = context.keys.recall(hashed)
    if caller is None:
        caller = _look_up(context, hashed)
        context.keys.remember(hashed, caller)
    context.keys.spend(caller.key_id)
    request.state.project = caller.project
    return caller


def _look_up(context: Context, hashed: str) -> Caller:
    with context.database.read() as session:
        row = session.execute(
            select(ApiKey, Project.name).join(Project, Project.id == ApiKey.project_id).where(ApiKey.hash == hashed)
        ).one_or_none()
    if row is None:
        raise AuthenticationError("the key is not known here: check INN_AUTOML_KEY, or ask an admin for a new key.")
    key, project = row
    if key.revoked_at is not None:
        raise AuthenticationError(f"the key {key.prefix}... was revoked: ask an admin for a new one.")
    if key.last_used_at is None or now() - key.last_used_at > LAST_USED_STEP:
        with context.database.write() as session:
            stored = session.get(ApiKey, key.id)
            if stored is not None:
                stored.last_used_at = now()
    return Caller(key.id, key.project_id, project, Role(key.role))


class _Requires:
    """A dependency that lets some roles pass."""

    def __init__(self, *roles: Role) -> None:
        self._roles = roles

    def __call__(self, caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        if caller.role not in self._roles:
            allowed = " or ".join(self._roles)
            raise ForbiddenError(f"a key of the role {caller.role} may not do this: use one of the role {allowed}.")
        return caller


Admin = Annotated[Caller, Depends(_Requires(Role.ADMIN))]
User = Annotated[Caller, Depends(_Requires(Role.USER, Role.ADMIN))]
Agent = Annotated[Caller, Depends(_Requires(Role.AGENT, Role.ADMIN))]
AnyRole = Annotated[Caller, Depends(authenticate)]
