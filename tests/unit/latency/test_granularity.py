from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from inn_automl.latency.design import initial_design
from inn_automl.latency.granularity import MIN_PAIRS, _rank_of_bound, find_granularity, rounded_up
from tests.unit.latency.test_design import space


def measured(where, lanes, noise=0.0, num=36):
    """A device that computes `lanes` channels at a time, one layer after the other."""
    rng = np.random.default_rng(0)
    found = {}
    for widths in initial_design(where, num):
        key = where.key(widths)
        whole = [-(-width // lanes) * lanes for width in key]
        found[key] = 1.0 + sum(a * b for a, b in pairwise(whole)) / 1e3
        found[key] *= float(np.exp(rng.normal(0, noise)))
    return found


@pytest.mark.parametrize(("lanes", "suggested"), [(1, 1), (8, 8), (16, 16)])
def test_the_step_of_a_device_is_found(lanes, suggested):
    where = space([64, 96, 96, 128])
    found = find_granularity(where.values, measured(where, lanes, noise=0.01))
    assert found.suggested == suggested
    assert found.num_pairs >= MIN_PAIRS and f"{found.num_pairs} measured pairs" in found.evidence
    assert found.sentence.startswith(
        "no granularity" if suggested == 1 else f"granularity {suggested} is suggested"
    )
    if lanes > 1:
        assert found.median_ratio <= found.ratio_bound < 1.05
    else:
        assert found.median_ratio > 1.05


def test_steps_that_were_given_are_not_judged_again():
    where = space([64, 96, 96, 128], granularity=16)
    assert find_granularity(where.values, measured(where, 16), given=16) is None


def test_too_few_pairs_say_nothing():
    where = space([64, 96])
    assert find_granularity(where.values, measured(where, 8, num=9)) is None


def test_rounding_up_ends_at_the_full_size():
    assert rounded_up(range(4, 31), 9, 8) == 16
    assert rounded_up(range(4, 31), 25, 8) == 30
    assert rounded_up((12, 20), 13, 8) == 20


@pytest.mark.parametrize("num", range(4, 20))
def test_the_bound_is_the_lowest_order_statistic_with_the_confidence(num):
    index = _rank_of_bound(num)
    assert binom.cdf(index, num, 0.5) >= 0.9 > (binom.cdf(index - 1, num, 0.5) if index else 0)
