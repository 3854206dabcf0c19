"""Every error of ours has its answer."""

from __future__ import annotations

import pytest
from inn_automl_services.coordinator.problems import CATALOG, entry_of

from inn_automl.core import errors

CLASSES = sorted(errors.BY_CODE.values(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_an_entry_of_its_own(kind: type[errors.InnAutomlError]) -> None:
    assert 400 <= CATALOG[kind].status < 600
    assert CATALOG[kind].code == kind.code
    assert CATALOG[kind].title


def test_the_catalog_holds_nothing_else() -> None:
    assert set(CATALOG) == set(CLASSES)


def test_bad_input_is_never_the_servers_fault() -> None:
    assert all(
        entry.status < 500 for kind, entry in CATALOG.items() if issubclass(kind, errors.InputError)
    )


def test_a_subclass_without_entry_is_answered_as_its_nearest_base() -> None:
    class Special(errors.DatasetFormatError):
        pass

    assert entry_of(Special("")) is CATALOG[errors.DatasetFormatError]
