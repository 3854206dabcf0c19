"""Comparing models on the same samples: which differences are real, and how much a winner's value
flatters it.

Two models make many of the same errors, so their difference on the same samples is known far
better than either value (Q. McNemar, 1947). The winner of many was lucky on the samples that chose
it: its optimism is measured by choosing again and again without a part of the samples, and looking
at that part (G. Cawley and N. Talbot, "On Over-fitting in Model Selection and Subsequent Selection
Bias in Performance Evaluation", JMLR 2010; R. J. Tibshirani and R. Tibshirani, "A Bias Correction
for the Minimum Error Rate in Cross-validation", 2009).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, norm

from inn_automl.core.sample_scores import SampleScores
from inn_automl.width_search.pareto import Floats

SIGNIFICANCE = 0.05
NUM_FOLDS, NUM_REPETITIONS = 10, 20
"""Parts that a choice leaves out in turn, and random divisions into parts."""
_LOSS_WEIGHT = 1e-6
"""Of a loss beside a metric value: it decides between equal values only."""


def p_value(one: ArrayLike, other: ArrayLike) -> float:
    """Two-sided p-value that two models are equal on average, from paired values of samples.

    Where pairs differ by at most one (right and wrong), this is McNemar's exact test, with half
    of the probability of what was seen (M. Fagerland, S. Lydersen and P. Laake, 2013); for other
    values that of a normal mean.

    Args:
        one: (n,).
        other: (n,), of the same samples.
    """
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    num_up, num_down = int((difference > 0).sum()), int((difference < 0).sum())
    if num_up + num_down == 0:
        return 1.0
    if np.isin(difference, (-1.0, 0.0, 1.0)).all():
        fewer, num = min(num_up, num_down), num_up + num_down
        tail = 2 * binom.cdf(fewer, num, 0.5) - binom.pmf(fewer, num, 0.5)
        return min(1.0, float(tail))
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.inf
    return float(2 * norm.sf(abs(difference.mean()) / max(error, 1e-12)))


def is_tie(one: SampleScores | None, other: SampleScores | None) -> bool:
    """Whether the metric values of two models cannot be told apart; False where it is not known."""
    if one is None or other is None or len(one) != len(other):
        return False
    return p_value(one.contributions, other.contributions) >= SIGNIFICANCE


def has_lower_loss(one: SampleScores | None, other: SampleScores | None) -> bool:
    """Whether one model surely has the lower mean loss; False where it is not known."""
    if one is None or other is None or len(one) != len(other):
        return False
    if one.losses.mean() >= other.losses.mean():
        return False
    return p_value(one.losses, other.losses) < SIGNIFICANCE


def is_surely_below(one: ArrayLike, other: ArrayLike, *, deviations: float) -> bool:
    """Whether the mean of paired values is below another's by so many standard errors.

    Args:
        one: (n,).
        other: (n,), of the same samples.
        deviations: standard errors.
    """
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    num = len(difference)
    # One sample more on either side: where all pairs are alike, their spread is not zero.
    variance = (difference.var() * num + 1.0 / num) / num if num else np.inf
    return bool(difference.mean() + deviations * (variance / max(num, 1)) ** 0.5 < 0)


def ties_of(points: Sequence[SampleScores | None]) -> list[tuple[int, ...]]:
    """For each model, the indices of those that its metric value cannot be told apart from."""
    return [
        tuple(j for j, other in enumerate(points) if j != i and is_tie(one, other))
        for i, one in enumerate(points)
    ]


def optimism(
    samples: Sequence[SampleScores], latency_ms: ArrayLike, limits_ms: ArrayLike, *, seed: int = 0
) -> float:
    """How far the value of a front's points lies above what they are worth, on average.

    For each of `limits_ms`, the best candidate within it is chosen by nine tenths of the samples
    and judged by the tenth, in every fold of random divisions.

    Args:
        samples: of each candidate, all of the same samples.
        latency_ms: (n,), of each candidate.
        limits_ms: (m,), the latencies of the front's points.

    Returns:
        At least 0, in the unit of the metric.
    """
    latency, limits = np.asarray(latency_ms, dtype=np.float64), np.asarray(limits_ms)
    num = min((len(one) for one in samples), default=0)
    if num < 4 or not len(limits):
        return 0.0
    values = np.stack([one.contributions[:num] for one in samples]).astype(np.float64)
    losses = np.stack([one.losses[:num] for one in samples]).astype(np.float64)
    left_out = _divisions(num, np.random.default_rng(seed))
    sizes = left_out.sum(axis=1)
    outside = values @ left_out.T / sizes
    inside = (values.sum(axis=1, keepdims=True) - values @ left_out.T) / (num - sizes)
    losses_inside = (losses.sum(axis=1, keepdims=True) - losses @ left_out.T) / (num - sizes)
    ranked = inside - _LOSS_WEIGHT * losses_inside
    gaps = []
    for limit in limits:
        allowed = np.flatnonzero(latency <= limit)
        if len(allowed):
            chosen = allowed[ranked[allowed].argmax(axis=0)]
            folds = np.arange(len(chosen))
            gaps.append(float((inside[chosen, folds] - outside[chosen, folds]).mean()))
    return max(0.0, float(np.mean(gaps))) if gaps else 0.0


def _divisions(num: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(folds, num): 1 for the samples that a fold leaves out."""
    num_folds = min(NUM_FOLDS, num // 2)
    rows = []
    for _ in range(NUM_REPETITIONS):
        fold = rng.permutation(np.arange(num) % num_folds)
        rows += [(fold == k).astype(np.float64) for k in range(num_folds)]
    return np.stack(rows)


def optimism_of(
    samples: Sequence[SampleScores | None], latency_ms: Sequence[float], limits_ms: Sequence[float]
) -> float:
    """`optimism` of the candidates that were evaluated on the whole split."""
    most = max((len(one) for one in samples if one is not None), default=0)
    whole = [i for i, one in enumerate(samples) if one is not None and len(one) == most]
    latency: Floats = np.array([latency_ms[i] for i in whole], dtype=np.float64)
    return optimism(
        [one for one in samples if one is not None and len(one) == most], latency, limits_ms
    )
