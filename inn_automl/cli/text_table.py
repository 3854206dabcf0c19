"""Tables for people, as wide as their terminal is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Sequence

from texttable import Texttable

PAGE_COLUMNS = 120
"""Width where standard output is no terminal."""
LEAST_COLUMNS = 60
"""A narrower terminal breaks the lines itself."""


def text_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    max_columns: int | None = None,
) -> str:
    """The table's lines; where they would be too long, the widest cells are folded.

    Args:
        columns: their names.
        rows: a cell for each column.
        right: names of the columns that stand flush right, as numbers do.
        max_columns: most characters of a line; by default, those of the terminal.
    """
    if max_columns is None:
        max_columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else PAGE_COLUMNS
    table = Texttable(max_width=max(max_columns, LEAST_COLUMNS))
    table.set_deco(Texttable.HEADER)
    table.set_chars(["-", "|", "-", "-"])
    aligned = ["r" if column in right else "l" for column in columns]
    table.set_cols_align(aligned).set_header_align(aligned).set_cols_dtype(["t"] * len(columns))
    table.header(columns).add_rows(rows, header=False)
    return "\n".join(line.rstrip() for line in table.draw().splitlines())
