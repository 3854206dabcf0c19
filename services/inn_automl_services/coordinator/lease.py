"""Leases: whoever holds the token of a row may act for it until the lease expires.

A lease belongs to one attempt at a row that has a `LeaseMixin`: at a job, held by its run, or at a
measurement, held by an agent. The token itself is not stored, only its hash. Issuing a new token
ends the lease before it; a holder that comes too late is refused. Callers lock the row first, so
that nobody else changes it until their transaction ends.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement

from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import LeaseMixin
from inn_automl_services.coordinator.keys import hash_secret


def issue(row: LeaseMixin, *, lease_s: float) -> str:
    """Begins the next attempt at a row and returns the token of its lease."""
    token = secrets.token_urlsafe(32)
    row.attempt += 1
    row.lease_token_hash = hash_secret(token)
    renew(row, lease_s=lease_s)
    return token


def renew(row: LeaseMixin, *, lease_s: float) -> None:
    """Lets the lease last for `lease_s` from now on."""
    row.lease_expires_at = now() + timedelta(seconds=lease_s)


def release(row: LeaseMixin) -> None:
    """Ends the lease: its token is worth nothing any more."""
    row.lease_token_hash = row.lease_expires_at = None


RELEASED: dict[str, None] = {"lease_token_hash": None, "lease_expires_at": None}
"""The values of columns that end leases in an UPDATE."""


def take_back(row: LeaseMixin) -> None:
    """Ends the lease of an attempt that did not begin, as if it had not been issued."""
    row.attempt -= 1
    release(row)


def complete(row: LeaseMixin) -> None:
    """Ends the expiry of an attempt that has delivered; its token stays valid for recognition."""
    row.lease_expires_at = None


def is_holder(row: LeaseMixin, token: str) -> bool:
    """Returns whether the token is that of the row's lease, in constant time."""
    return secrets.compare_digest(row.lease_token_hash or "", hash_secret(token))


def expires_by(row: LeaseMixin, instant: datetime) -> bool:
    """Returns whether the row has a lease that has expired at an instant."""
    return row.lease_expires_at is not None and row.lease_expires_at < instant


def expired(table: type[LeaseMixin], instant: datetime) -> ColumnElement[bool]:
    """Rows whose lease has expired at an instant, as a condition of a query."""
    return table.lease_expires_at < instant


def unexpired(table: type[LeaseMixin], instant: datetime) -> ColumnElement[bool]:
    """Rows whose lease lasts beyond an instant, as a condition of a query."""
    return table.lease_expires_at >= instant
