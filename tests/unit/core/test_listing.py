from __future__ import annotations

import pytest

from inn_automl.core.listing import abbreviate


@pytest.mark.parametrize(
    ("limit", "text"), [(4, "a, b, c"), (3, "a, b, c"), (2, "a, b and 1 more"), (1, "a and 2 more")]
)
def test_a_long_list_is_cut(limit: int, text: str) -> None:
    assert abbreviate(["a", "b", "c"], limit) == text


def test_nothing_is_an_empty_text() -> None:
    assert abbreviate([], 3) == ""
