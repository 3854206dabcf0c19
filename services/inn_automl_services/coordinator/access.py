"""Authentication: the caller behind a request's key or lease token, and the rights of its role.

An endpoint takes `User`, `Admin`, `Agent`, `AnyRole` or `LeaseToken` as an argument.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select

from inn_automl.api.access import Role
from inn_automl.core.errors import AuthenticationError, ForbiddenError
from inn_automl_services.coordinator.context import Context, get_context
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import ApiKeyRow, ProjectRow
from inn_automl_services.coordinator.keys import Caller, hash_secret

LAST_USED_RESOLUTION = timedelta(minutes=1)
"""`last_used_at` is this coarse, so that reading does not become writing."""

_bearer = HTTPBearer(auto_error=False, description="An API key, `inn_...`.")
_lease_bearer = HTTPBearer(
    auto_error=False, scheme_name="LeaseToken", description="The lease token of a job's run."
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
            select(ApiKeyRow, ProjectRow.name)
            .join(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
            .where(ApiKeyRow.hash == hashed)
        ).one_or_none()
    if row is None:
        raise AuthenticationError(
            "the key is not known here: check INN_AUTOML_KEY, or ask an admin for a new key."
        )
    key, project = row
    if key.revoked_at is not None:
        raise AuthenticationError(
            f"the key {key.prefix}... was revoked: ask an admin for a new one."
        )
    if key.last_used_at is None or now() - key.last_used_at > LAST_USED_RESOLUTION:
        with context.database.write() as session:
            stored = session.get(ApiKeyRow, key.id)
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
            raise ForbiddenError(
                f"a key of the role {caller.role} may not do this: use one of the role {allowed}."
            )
        return caller


Admin = Annotated[Caller, Depends(_Requires(Role.ADMIN))]
User = Annotated[Caller, Depends(_Requires(Role.USER, Role.ADMIN))]
Agent = Annotated[Caller, Depends(_Requires(Role.AGENT, Role.ADMIN))]
AnyRole = Annotated[Caller, Depends(authenticate)]


def _lease_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_lease_bearer)],
) -> str:
    if credentials is None:
        raise AuthenticationError(
            "no lease token was given: send it as `Authorization: Bearer TOKEN`."
        )
    return credentials.credentials


LeaseToken = Annotated[str, Depends(_lease_token)]
"""The token that a run was started with; workers send it in place of a key."""
