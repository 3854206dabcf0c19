"""Ranking of candidates that the validation samples can hardly tell apart.

On an easy task the smallest network that was lucky has every larger one behind it. Where a slower
candidate's metric value cannot be told apart from that of a faster one, and its proper score is
surely better, it ranks above: both by the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from inn_automl.core.sample_scores import SampleScores
from inn_automl.width_search.comparison import has_lower_loss, is_tie
from inn_automl.width_search.pareto import Floats


def promoted(
    latency_ms: ArrayLike,
    metric_value: ArrayLike,
    loss: ArrayLike,
    samples: Sequence[SampleScores | None],
) -> Floats:
    """Values by which candidates are ranked: their metric values, raised above that of a faster
    candidate where the two are a tie and its loss is surely lower.

    Args:
        latency_ms: (n,).
        metric_value: (n,).
        loss: (n,), of a proper score; of candidates that are equal in all else the lowest is first.
        samples: of each; None where they are not known.

    Returns:
        (n,); only their order has a meaning.
    """
    latency = np.asarray(latency_ms, dtype=np.float64)
    values = np.array(metric_value, dtype=np.float64)
    distinct = np.unique(values)
    gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
    best, holder = -1, -1
    for i in np.lexsort((np.asarray(loss, dtype=np.float64), -values, latency)):
        if best < 0 or values[i] > values[best]:
            best = holder = int(i)
        elif (
            is_tie(samples[i], samples[holder])
            and is_tie(samples[i], samples[best])
            and has_lower_loss(samples[i], samples[best])
        ):
            values[i] = values[best] + 0.5 * gap / len(values)
            best = int(i)
    return values
