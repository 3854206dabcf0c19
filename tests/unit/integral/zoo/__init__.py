"""Small modules, each with one way in which channels depend on each other."""

from tests.unit.integral.zoo import convolutions, frozen, joins, rearranging, tokens
from tests.unit.integral.zoo.case import CASES, Case, Net, conv, head
from tests.unit.integral.zoo.tokens import HeadAttention

__all__ = [
    "CASES",
    "Case",
    "HeadAttention",
    "Net",
    "conv",
    "convolutions",
    "frozen",
    "head",
    "joins",
    "rearranging",
    "tokens",
]
