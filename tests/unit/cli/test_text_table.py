from __future__ import annotations

import pytest

from inn_automl.cli.text_table import PAGE_COLUMNS, text_table

ROWS = [["a", "1.5"], ["a name of several words", "12.25"]]


def test_numbers_stand_right_and_lines_end_where_their_text_does() -> None:
    assert text_table(["name", "ms"], ROWS, right=["ms"]).splitlines() == [
        "name                         ms",
        "-------------------------------",
        "a                           1.5",
        "a name of several words   12.25",
    ]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lines_are_no_longer_than_the_terminal_and_lose_nothing(columns: int) -> None:
    words = [f"word{index}" for index in range(40)]
    lines = text_table(["name", "what"], [["a", " ".join(words)]], max_columns=columns).splitlines()
    assert max(len(line) for line in lines) <= columns
    assert " ".join(lines[2:]).split() == ["a", *words]


def test_numbers_are_shown_as_they_were_written() -> None:
    assert text_table(["x"], [["1e10"], ["007"], ["nan"]]).split()[-3:] == ["1e10", "007", "nan"]


def test_a_pipe_gets_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert max(len(line) for line in text_table(["what"], [["x " * 200]]).splitlines()) in range(
        100, PAGE_COLUMNS + 1
    )


def test_a_table_without_rows_has_a_header() -> None:
    assert text_table(["name", "ms"], []).splitlines() == ["name   ms", "---------"]
