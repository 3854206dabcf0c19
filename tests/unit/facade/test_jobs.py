from __future__ import annotations

from typing import Any

import pytest

import inn_automl
from inn_automl.core.errors import SpecError


@pytest.mark.parametrize("budget", [[1], None, 3])
def test_a_budget_of_another_type_is_refused(budget: Any) -> None:
    with pytest.raises(SpecError) as caught:
        inn_automl.search("digits", budget)
    for part in (type(budget).__name__, "Budget", "mapping", "budget.yaml"):
        assert part in str(caught.value)
