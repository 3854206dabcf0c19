"""Every error of ours has its answer."""

from __future__ import annotations

import inspect

import pytest
from inn_automl_services.coordinator import errors as service_errors
from inn_automl_services.coordinator.problems import CATALOG, entry_of

from inn_automl.core import errors

OURS = sorted(
    {
        kind
        for module in (errors, service_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, errors.InnAutomlError)
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_an_entry_of_its_own(kind: type[Exception]) -> None:
    assert kind in CATALOG
    assert 400 <= CATALOG[kind].status < 600
    assert CATALOG[kind].code.isidentifier()
    assert CATALOG[kind].title


def test_the_catalog_holds_nothing_else() -> None:
    assert set(CATALOG) == set(OURS)


def test_codes_are_unique() -> None:
    codes = [entry.code for entry in CATALOG.values()]
    assert len(codes) == len(set(codes))


def test_bad_input_is_never_the_servers_fault() -> None:
    assert all(
        entry.status < 500 for kind, entry in CATALOG.items() if issubclass(kind, errors.InputError)
    )


def test_a_subclass_without_entry_is_answered_as_its_nearest_base() -> None:
    class Special(errors.DatasetFormatError):
        pass

    assert entry_of(Special("")) is CATALOG[errors.DatasetFormatError]
