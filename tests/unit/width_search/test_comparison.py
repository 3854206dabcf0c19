from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from inn_automl.core.sample_scores import SampleScores
from inn_automl.width_search.comparison import (
    has_lower_loss,
    is_surely_below,
    is_tie,
    optimism,
    optimism_of,
    p_value,
    ties_of,
)
from inn_automl.width_search.pareto import pareto_front
from inn_automl.width_search.promotion import promoted


def scores(correct: np.ndarray, losses: np.ndarray | None = None) -> SampleScores:
    values = np.asarray(correct, dtype=np.float32)
    return SampleScores(values, 1 - values if losses is None else losses.astype(np.float32))


def wrong_at(*positions: int, num: int = 100, loss: float = 0.1) -> SampleScores:
    correct = np.ones(num)
    correct[list(positions)] = 0
    return scores(correct, np.full(num, loss) + np.linspace(0, 0.01, num))


def test_right_and_wrong_are_compared_by_mcnemar() -> None:
    one, other = wrong_at(*range(6)).contributions, wrong_at().contributions
    exact = binomtest(0, 6, 0.5).pvalue
    assert p_value(one, other) == pytest.approx(exact / 2)  # mid-p of six pairs on one side
    assert p_value(one, one) == 1.0
    assert p_value([1, 0], [0, 1]) == pytest.approx(1.0)


def test_other_values_are_compared_by_their_mean() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=400)
    assert p_value(one, one + 0.1 + 0.3 * rng.normal(size=400)) < 1e-6
    false_alarms = [p_value(a, b) < 0.05 for a, b in rng.normal(size=(400, 2, 50))]
    assert 0.02 < np.mean(false_alarms) < 0.09


def test_pairs_tell_apart_what_two_intervals_do_not() -> None:
    """Both are within a point of each other, and the second never errs where the first does not."""
    common = list(range(20))
    one, other = wrong_at(*common, *range(20, 28), num=1000), wrong_at(*common, num=1000)
    assert not is_tie(one, other)
    assert is_tie(wrong_at(*common, num=1000), wrong_at(*range(21), num=1000))
    assert ties_of([one, other, other]) == [(), (2,), (1,)]


def test_what_is_not_known_is_no_tie() -> None:
    assert not is_tie(None, wrong_at()) and not has_lower_loss(wrong_at(), None)
    assert not is_tie(wrong_at(num=10), wrong_at())  # other samples


def test_a_candidate_is_surely_below_only_by_its_errors() -> None:
    best = wrong_at().contributions
    assert is_surely_below(wrong_at(*range(20)).contributions, best, deviations=3.0)
    assert not is_surely_below(wrong_at(0, 1).contributions, best, deviations=3.0)
    assert not is_surely_below(best, best, deviations=3.0)


def test_the_optimism_of_a_lucky_winner_is_measured() -> None:
    """Of 150 equal candidates with independent errors the best is lucky by a known amount."""
    rng, raw, corrected = np.random.default_rng(1), [], []
    for _ in range(12):
        drawn = (rng.random((150, 300)) < 0.9).astype(np.float32)
        samples = [scores(row) for row in drawn]
        found = optimism(samples, np.arange(150), [149])
        raw.append(drawn.mean(axis=1).max() - 0.9)
        corrected.append(raw[-1] - found)
    assert np.mean(raw) > 0.035
    assert abs(np.mean(corrected)) < 0.012


def test_candidates_that_err_alike_have_no_optimism() -> None:
    samples = [wrong_at(3, 7)] * 20
    assert optimism(samples, np.arange(20), [5, 19]) == pytest.approx(0.0, abs=1e-9)


def test_only_candidates_that_saw_all_samples_count() -> None:
    lucky = scores(np.ones(10))
    assert optimism_of([wrong_at(1), lucky, None], [1.0, 1.0, 1.0], [1.0]) == pytest.approx(0.0)
    assert optimism_of([None], [1.0], [1.0]) == 0.0


def test_an_easy_task_has_a_front_from_the_smallest_that_is_as_good() -> None:
    """The smallest is right once more than the larger ones, whose log losses are surely lower."""
    found = [wrong_at(*range(30)), wrong_at(0), *(wrong_at(0, 1, loss=x) for x in (0.08, 0.05))]
    latency, loss = [1.0, 2.0, 3.0, 4.0], [float(one.losses.mean()) for one in found]
    values = [float(one.contributions.mean()) for one in found]
    assert pareto_front(latency, values).tolist() == [0, 1]
    assert pareto_front(latency, promoted(latency, values, loss, found)).tolist() == [0, 1, 2, 3]


def test_equal_losses_and_worse_values_promote_nobody() -> None:
    found = [wrong_at(0), wrong_at(0), wrong_at(*range(12), loss=0.01)]
    latency, loss = [1.0, 2.0, 3.0], [float(one.losses.mean()) for one in found]
    values = [float(one.contributions.mean()) for one in found]
    ranks = promoted(latency, values, loss, found)
    assert pareto_front(latency, ranks).tolist() == [0]
    np.testing.assert_array_equal(promoted(latency, values, loss, [None] * 3), values)
