"""The lease of a row, whatever the row is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from inn_automl_services.coordinator import lease
from inn_automl_services.coordinator.db.session import now
from inn_automl_services.coordinator.db.tables import JobRow, LeaseMixin, MeasurementRow


@pytest.fixture(params=[JobRow, MeasurementRow])
def row(request: pytest.FixtureRequest) -> LeaseMixin:
    made: LeaseMixin = request.param(attempt=0)
    return made


def test_only_the_token_of_the_latest_lease_is_good(row: LeaseMixin) -> None:
    first = lease.issue(row, lease_s=60.0)
    assert lease.is_holder(row, first)
    second = lease.issue(row, lease_s=60.0)
    assert (lease.is_holder(row, first), lease.is_holder(row, second)) == (False, True)
    assert row.attempt == 2
    assert second not in (row.lease_token_hash or "")


def test_a_released_lease_has_no_holder(row: LeaseMixin) -> None:
    token = lease.issue(row, lease_s=60.0)
    lease.release(row)
    assert not lease.is_holder(row, token)
    assert not lease.is_holder(row, "")
    assert not lease.expires_by(row, now() + timedelta(days=1))


def test_a_lease_expires_unless_it_is_renewed(row: LeaseMixin) -> None:
    lease.issue(row, lease_s=10.0)
    later = now() + timedelta(seconds=20)
    assert (lease.expires_by(row, now()), lease.expires_by(row, later)) == (False, True)
    lease.renew(row, lease_s=60.0)
    assert not lease.expires_by(row, later)


def test_a_lease_that_is_taken_back_costs_no_attempt(row: LeaseMixin) -> None:
    token = lease.issue(row, lease_s=60.0)
    lease.take_back(row)
    assert (row.attempt, lease.is_holder(row, token)) == (0, False)


def test_a_settled_lease_is_recognized_and_never_expires(row: LeaseMixin) -> None:
    token = lease.issue(row, lease_s=60.0)
    lease.complete(row)
    assert lease.is_holder(row, token)
    assert not lease.expires_by(row, now() + timedelta(days=1))
