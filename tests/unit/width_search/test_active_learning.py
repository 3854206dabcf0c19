from __future__ import annotations

from dataclasses import replace

import pytest

from inn_automl.core.errors import MeasurementError
from inn_automl.core.spec import SearchBudget
from inn_automl.width_search.active_learning import MIN_ITERATION_SIZE
from inn_automl.width_search.evaluations import EvaluationTable
from inn_automl.width_search.run import run_search
from tests.unit.width_search.search_samples import accuracy_of, device, predict


def true_ms(widths):
    """True latency: the last group costs half as much again where it is wide."""
    return predict([widths])[0].latency_ms * (1.5 if list(widths.values())[-1] > 12 else 1.0)


class Measuring:
    """A device whose iterations are kept by the caller, as a job's folder keeps them."""

    margin = 0.1

    def __init__(self, iterations, limit=60):
        self.iterations, self.limit = iterations, limit

    @property
    def num_made(self):
        return sum(len(widths) for _, widths in self.iterations)

    @property
    def num_left(self):
        return self.limit - self.num_made

    @property
    def last_batch(self):
        return self.iterations[-1][0] if self.iterations else -1

    def is_measured(self, widths):
        return any(widths in known for _, known in self.iterations)

    def measure(self, batch, widths):
        assert not any(map(self.is_measured, widths)), "measured again"
        self.iterations.append((batch, [dict(one) for one in widths]))

    def predict(self, batch):
        is_corrected = bool(self.iterations)
        found = []
        for widths, one in zip(batch, predict(batch), strict=True):
            known = self.is_measured(widths) or is_corrected
            found.append(replace(one, latency_ms=true_ms(widths) if known else one.latency_ms))
        return found


def searched(tmp_path, measuring, num=40, patience=50, **keywords):
    one = replace(device(max_latency_ms=20.0), predict=measuring.predict, active_learning=measuring)
    budget = SearchBudget(max_evaluations=num, batch_size=6, patience=patience)
    evaluate = keywords.pop("evaluate", lambda batch: [accuracy_of(widths) for widths in batch])
    return run_search([one], evaluate, budget, tmp_path, baseline=0.25, **keywords)


def test_the_front_is_measured_when_the_search_ends(tmp_path):
    measuring, seen = Measuring([]), []
    outcome = searched(tmp_path, measuring, on_batch=seen.append)
    (found,) = outcome.devices
    front = [found.candidates[i] for i in found.front]
    assert len(front) > 3 and all(measuring.is_measured(one.widths) for one in front)
    assert [one.prediction.latency_ms for one in front] == [true_ms(one.widths) for one in front]
    assert f"All {len(front)} widths of its front are measured." in found.reason
    num = outcome.evaluations[-1].batch + 1
    assert list(found.hypervolume) == sorted(found.hypervolume) and len(found.hypervolume) == num
    assert all(
        len(widths) >= MIN_ITERATION_SIZE for batch, widths in measuring.iterations if batch < num
    )
    assert seen[-1].num_measured == {"laptop": measuring.num_made}
    # Some while the search goes on, so that it can follow, and some at the end.
    assert (
        any(batch < num for batch, _ in measuring.iterations) and measuring.iterations[-1][0] == num
    )


def test_what_predictions_say_now_decides_what_is_feasible(tmp_path):
    outcome = searched(tmp_path, Measuring([]))
    (found,) = outcome.devices
    for one in found.candidates:
        assert one.prediction.latency_ms == true_ms(one.widths)
        assert one.feasible == (1.1 * true_ms(one.widths) <= 20.0)
    assert not all(one.feasible for one in found.candidates)  # evaluated before the correction


def test_the_limit_is_kept_and_said(tmp_path):
    measuring = Measuring([], limit=5)
    outcome = searched(tmp_path, measuring)
    assert measuring.num_made == 5 and measuring.num_left == 0
    assert "no more measurements are allowed" in outcome.devices[0].reason
    none = Measuring([], limit=0)
    assert searched(tmp_path / "none", none).stopped == "budget" and none.iterations == []


def test_a_stalled_search_measures_its_front_before_it_ends(tmp_path):
    measuring = Measuring([])
    outcome = searched(
        tmp_path, measuring, num=500, patience=2, evaluate=lambda batch: [0.5] * len(batch)
    )
    assert outcome.stopped == "stalled"
    (found,) = outcome.devices
    assert "less than 0.1% in 2 batches" in found.reason and "are measured" in found.reason
    assert all(measuring.is_measured(found.candidates[i].widths) for i in found.front)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    measuring = Measuring([])
    return searched(tmp_path_factory.mktemp("state"), measuring), measuring.iterations


def test_killed_at_any_write_it_ends_as_if_nothing_had_happened(
    tmp_path, uninterrupted, monkeypatch
):
    class Killed(BaseException):
        pass

    left = 0

    def deadly(write):
        def wrapped(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return write(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(EvaluationTable, "_append", deadly(EvaluationTable._append))
    monkeypatch.setattr(Measuring, "measure", deadly(Measuring.measure))
    outcome, iterations, kills = None, [], 0
    while outcome is None:
        left = 4 + kills % 11
        try:
            outcome = searched(tmp_path, Measuring(iterations))
        except Killed:
            kills += 1
    assert kills >= 6
    expected, expected_rounds = uninterrupted
    assert iterations == expected_rounds
    assert outcome.evaluations == expected.evaluations and outcome.devices == expected.devices


def test_killed_right_after_a_measurement_it_measures_nothing_again(tmp_path, uninterrupted):
    expected, expected_rounds = uninterrupted

    class Dying(Measuring):
        def measure(self, batch, widths):
            super().measure(batch, widths)
            raise MeasurementError("the agent left")

    iterations, outcome = [], None
    for _ in range(len(expected_rounds) + 1):
        try:
            outcome = searched(tmp_path, Dying(iterations))
        except MeasurementError:
            continue
    assert iterations == expected_rounds
    assert outcome is not None and outcome.devices == expected.devices
