"""Steps that a device computes widths in, found from pairs of networks, one of them rounded up to
whole steps.

If the wider network of a pair is no slower, the widths between the steps are dominated: they cost
as much and can do less. So a step is suggested where the median ratio of latencies, wider to
narrower, is with some confidence not above one. The confidence bound of a median is an order
statistic and assumes nothing of the ratios' distribution (Conover, "Practical Nonparametric
Statistics", section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inn_automl.core.result import Granularity

STEPS = (8, 16)
"""Channels that the vector units of CPUs compute together."""
TIE = 0.02
"""Slower by less counts as no slower: measurements differ by more."""
CONFIDENCE = 0.9
MIN_PAIRS = 5


def rounded_up(values: Sequence[int], width: int, step: int) -> int:
    """The next multiple of `step`, from `width` up, that a group may take; its largest width if
    there is none.
    """
    return next((value for value in values if value >= width and value % step == 0), values[-1])


def find_granularity(
    values: Sequence[Sequence[int]], measured: Mapping[tuple[int, ...], float], *, given: int = 1
) -> Granularity | None:
    """The widest step whose multiples are no slower than the widths below them.

    Args:
        values: the widths that each group may take, ascending.
        measured: widths -> latency in milliseconds.
        given: the granularity that the widths have already; only wider steps are judged.

    Returns:
        None where too few pairs were measured to judge any step.
    """
    judged: list[Granularity] = []
    for step in (step for step in STEPS if step > given):
        ratios = []
        for widths, latency_ms in measured.items():
            partner = tuple(
                rounded_up(v, width, step) for v, width in zip(values, widths, strict=True)
            )
            if partner != widths and partner in measured:
                ratios.append(measured[partner] / latency_ms)
        if len(ratios) >= MIN_PAIRS:
            judged.append(_judge(step, given, np.sort(ratios)))
    suggested = [one for one in judged if one.suggested > given]
    return suggested[-1] if suggested else (judged[0] if judged else None)


def _judge(step: int, given: int, ratios: np.ndarray) -> Granularity:
    """Args:
    ratios: (n,), ascending.
    """
    bound = float(ratios[_rank_of_bound(len(ratios))])
    median = float(np.median(ratios))
    num_faster = int(np.sum(ratios <= 1.0))
    dominated = bound <= 1.0 + TIE
    evidence = (
        f"rounding all widths up to multiples of {step} changed latency by {median - 1:+.1%} "
        f"(median of {len(ratios)} "
        f"measured pairs, at most {bound - 1:+.1%} with {CONFIDENCE:.0%} confidence; {num_faster} "
        f"became no slower)"
    )
    return Granularity(
        suggested=step if dominated else given,
        step=step,
        median_ratio=median,
        ratio_bound=bound,
        num_pairs=len(ratios),
        evidence=evidence,
    )


def _rank_of_bound(num: int) -> int:
    """Index, among `num` ascending values, of the one that the median stays below with at least
    `CONFIDENCE`.
    """
    # The value at index k lies below the median if more than k of them do: a binomial tail.
    for index in range(num):
        below = sum(math.comb(num, k) for k in range(index + 1)) / 2**num
        if below >= CONFIDENCE:
            return index
    return num - 1
