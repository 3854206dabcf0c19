"""Checks that text and numbers from outside can be stored by every database, and read back."""

from __future__ import annotations

import math
from typing import Any

from inn_automl.core.errors import InputError

MAX_DEPTH = 32


def check_storable(value: Any, where: str, *, depth: int = 0) -> None:
    """Refuses JSON that could not be stored: NUL and lone surrogates in texts, numbers that are
    not finite.

    Args:
        where: the location of the value in the request, for the message.

    Raises:
        InputError: names the location.
    """
    if depth > MAX_DEPTH:
        raise InputError(
            f"{where.partition('.')[0]} is nested more than {MAX_DEPTH} levels deep: make it "
            f"flatter."
        )
    match value:
        case str():
            if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
                raise InputError(f"{where} has a NUL or half a surrogate pair in it: leave it out.")
        case float():
            if not math.isfinite(value):
                raise InputError(
                    f"{where} is {value}, which JSON cannot say: give a finite number."
                )
        case dict():
            for key, item in value.items():
                check_storable(key, f"a key of {where}")
                check_storable(item, f"{where}.{key}", depth=depth + 1)
        case list() | tuple():
            for index, item in enumerate(value):
                check_storable(item, f"{where}[{index}]", depth=depth + 1)
