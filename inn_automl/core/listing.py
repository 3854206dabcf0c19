"""Lists of names in printed objects, cut where they are long."""

from __future__ import annotations

from collections.abc import Sequence


def abbreviate(names: Sequence[str], limit: int) -> str:
    """The first names, separated by commas, and the number of the others: `a, b and 3 more`.

    Args:
        names: in the order in which they are shown.
        limit: at most this many are shown.
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
