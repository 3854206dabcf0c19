from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from inn_automl.latency.statistics import _T95, SESSION, half_width, relative_width, summarize

LATENCY = st.floats(1e-3, 1e3)


def samples(logs, num_runs=1):
    """[process][block][run] with the same latency in all runs of a process."""
    return [[[float(np.exp(log))] * num_runs] for log in logs]


def test_table_of_student_t():
    np.testing.assert_allclose(_T95, student.ppf(0.975, np.arange(1, len(_T95) + 1)), atol=5e-4)


@given(
    st.lists(st.lists(LATENCY, min_size=1, max_size=5), min_size=2, max_size=6), st.floats(50, 99)
)
def test_summary_is_ordered(processes, percentile):
    runs = np.concatenate(processes)
    found = summarize({"m": [[process] for process in processes]}, percentile)["m"]
    assert found.p50 <= found.p95 <= found.p99 <= runs.max()
    assert found.at_percentile == pytest.approx(np.percentile(runs, percentile))
    for low, high in (found.ci, found.comparison_ci):
        assert 0 < low <= found.at_percentile <= high
    # With one model nothing is shared, and another process differs more than the mean does.
    assert found.ci[0] <= found.comparison_ci[0] * (1 + 1e-9)
    assert found.ci[1] >= found.comparison_ci[1] * (1 - 1e-9)
    assert found.num_samples == len(runs)


def test_slow_runs_stay_in_the_percentiles():
    found = summarize({"m": [[[1.0] * 90 + [9.0] * 10]] * 2}, 95)["m"]
    assert found.p95 == found.p99 == 9.0


@pytest.mark.parametrize("num_processes", [3, 8])
def test_interval_holds_for_another_process(num_processes):
    rng = np.random.default_rng(0)
    num_trials = 1500
    logs = rng.normal(size=(num_trials, num_processes + 1))
    held = 0
    for *seen, another in logs:
        found = summarize({"m": samples(seen)}, 95)["m"]
        held += found.ci[0] <= np.exp(another) <= found.ci[1]
    # The pooled percentile is put into the interval, which makes it a little too wide.
    assert 0.94 <= held / num_trials <= 0.975


def test_processes_that_agree_say_nothing_of_another_hour():
    found = summarize({"m": samples([0.0, 0.0, 0.0])}, 95)["m"]
    assert found.ci == pytest.approx((np.exp(-SESSION), np.exp(SESSION)))
    assert found.comparison_ci == (1.0, 1.0)


def test_mean_interval_covers_the_mean():
    rng = np.random.default_rng(1)
    logs = rng.normal(size=(4000, 6))
    held = [abs(row.mean()) <= half_width(row - row.mean()) for row in logs]
    assert np.mean(held) == pytest.approx(0.95, abs=0.01)


def test_comparison_leaves_out_what_all_models_share():
    """Every model is 40 % slower in some processes; that says nothing of which model is slower."""
    shared = np.array([0.0, 0.35, 0.0, 0.35, 0.35, 0.0])
    rng = np.random.default_rng(2)
    found = summarize({f"m{i}": samples(i + shared + rng.normal(0, 0.01, 6)) for i in range(5)}, 95)
    for one in found.values():
        assert one.comparison_ci[1] / one.comparison_ci[0] < one.ci[1] / one.ci[0]
        assert np.log(one.ci[1] / one.ci[0]) > 0.7
    means = [np.exp(i + shared.mean()) for i in range(5)]
    for one, mean in zip(found.values(), means, strict=True):
        assert one.comparison_ci[0] < mean * 1.03
        assert one.comparison_ci[1] > mean / 1.03


def test_relative_width_shrinks_with_processes():
    def width(repeats):
        return relative_width(samples([0.0, 0.1] * repeats), 95)

    assert width(1) > width(2) > width(4) > 0
    assert relative_width(samples([1.0] * 4), 95) == pytest.approx(0, abs=1e-12)
