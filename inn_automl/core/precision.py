"""The precision of a model's weights and activations, a choice beside its widths.

A search treats it as one more coordinate of a point: what every group's width is, and under
`precision` the bits of a number. A job that knows nothing but fp32 has no such coordinate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

BITS = {"fp32": 32, "fp16": 16, "int8": 8}
"""Bits by precision. A new precision needs a line here and code that makes its files."""
PRECISIONS = tuple(BITS)
DEFAULT = "fp32"

COORDINATE = "precision"
METADATA_KEY = "inn_automl.precision"
"""Key of the precision in an ONNX file's metadata; absent from a float32 file."""

_NAMES = {bits: name for name, bits in BITS.items()}


def join_point(widths: Mapping[str, int], precision: str = DEFAULT) -> dict[str, int]:
    """The point of a model in a space that has the coordinate."""
    return {**widths, COORDINATE: BITS[precision]}


def split_point(point: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """The widths and the precision of a point; fp32 where it lacks the coordinate."""
    widths = {name: width for name, width in point.items() if name != COORDINATE}
    return widths, _NAMES[point.get(COORDINATE, BITS[DEFAULT])]


def is_a_choice(precisions: Collection[str]) -> bool:
    """Return whether points of a job with these precisions have the coordinate."""
    return set(precisions) != {DEFAULT}
