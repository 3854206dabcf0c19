"""Widths by coupled group, and the checks of those that a user gives."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from numbers import Real

from inn_automl.core.errors import WidthsError
from inn_automl.integral.graph.groups import Group, describe_range

Widths = Mapping[str, int]


def check_widths(groups: Sequence[Group], widths: object) -> dict[str, int]:
    """The widths in the order of the groups.

    Raises:
        WidthsError: a group is missing or unknown, a width is not allowed, or the widths are not by
            group.
    """
    if not isinstance(widths, Mapping):
        raise WidthsError(
            f"widths {widths!r} are not by group: give widths by group, e.g. "
            f"network.uniform_widths(0.5)."
        )
    for name in widths:
        check_group(groups, name)
    checked = {}
    for group in groups:
        if group.name not in widths:
            raise WidthsError(
                f"widths lack the coupled group {group.name!r}: give "
                f"{describe_range(group.allowed)}."
            )
        width = widths[group.name]
        if width not in group.allowed:
            raise WidthsError(
                f"width {width!r} of {group.name!r} is not allowed: give "
                f"{describe_range(group.allowed)}."
            )
        checked[group.name] = int(width)
    return checked


def check_group(groups: Sequence[Group], name: object) -> None:
    """Checks that there is a group of this name.

    Raises:
        WidthsError: there is none; says which is the nearest.
    """
    known = [group.name for group in groups]
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {nearest[0]!r}? Known" if nearest else "known"
        raise WidthsError(f"there is no coupled group {name!r}: {hint} are {', '.join(known)}.")


def check_ratio(ratio: object, min_ratio: float) -> None:
    """Checks that a ratio of all groups' channels is a number in (0, 1].

    Args:
        ratio: as a user gave it.
        min_ratio: the smallest allowed one of the network, for the message.

    Raises:
        WidthsError: it is not.
    """
    if not isinstance(ratio, Real) or not 0 < float(ratio) <= 1:
        raise WidthsError(
            f"ratio {ratio!r} of all widths is out of range: give more than 0, at most 1 (the "
            f"smallest allowed widths are at {min_ratio:g})."
        )
