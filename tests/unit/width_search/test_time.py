"""A search within a time, and races between its candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inn_automl.core.sample_scores import SampleScores
from inn_automl.core.spec import SearchBudget
from inn_automl.width_search.clock import SearchClock
from inn_automl.width_search.evaluated import Evaluated
from inn_automl.width_search.evaluations import EvaluationTable
from inn_automl.width_search.run import EVALUATIONS, run_search
from inn_automl.width_search.space import Widths
from tests.unit.width_search.search_samples import GROUPS, accuracy_of, device

BUDGET = SearchBudget(max_evaluations=60, batch_size=5, patience=50)


def found(widths: Widths) -> Evaluated:
    rng = np.random.default_rng(sum(widths.values()))
    correct = (rng.random(50) < accuracy_of(widths)).astype(np.float32)
    return Evaluated(float(correct.mean()), 0.5, SampleScores(correct, 1 - correct))


class Time:
    """Passes by one second an evaluation."""

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    def __call__(self) -> float:
        return self.left_s


def test_the_search_ends_in_time_and_says_so(tmp_path: Path) -> None:
    time = Time(40.0)

    def evaluate(batch: list[dict[str, int]]) -> list[Evaluated]:
        time.left_s -= len(batch)
        return [found(one) for one in batch]

    clock = SearchClock(time, evaluation_s=1.0)
    clock.count_evaluated = lambda num, seconds: None  # type: ignore[method-assign]
    outcome = run_search([device()], evaluate, BUDGET, tmp_path, clock=clock)
    assert outcome.stopped == "time" and len(outcome.evaluations) == 30
    assert outcome.reason == "The time for the search is spent (30 evaluations in all)."
    assert outcome.devices[0].front


def test_no_limit_lets_the_budget_decide(tmp_path: Path) -> None:
    clock = SearchClock(evaluation_s=1e9)
    budget = SearchBudget(max_evaluations=12, batch_size=5, patience=50)
    outcome = run_search(
        [device()], lambda batch: [found(one) for one in batch], budget, tmp_path, clock=clock
    )
    assert outcome.stopped == "budget" and clock.evaluation_s < 10


def test_a_candidate_races_the_best_that_is_no_slower(tmp_path: Path) -> None:
    laptop, phone = device("laptop"), device("phone", max_latency_ms=20.0)
    known: dict[float, list[float]] = {}

    def evaluate(batch: list[dict[str, int]], rivals: list[Evaluated | None]) -> list[Evaluated]:
        results = []
        for widths, rival in zip(batch, rivals, strict=True):
            latency = laptop.predict([widths])[0].latency_ms
            faster = [v for ms, values in known.items() if ms <= latency for v in values]
            assert (rival is None) == (not faster)
            if rival is not None:
                assert rival.metric_value == max(faster)
            results.append(found(widths))
        for widths, result in zip(batch, results, strict=True):
            latency = laptop.predict([widths])[0].latency_ms
            known.setdefault(latency, []).append(result.metric_value)
        return results

    run_search([laptop, phone], evaluate, BUDGET, tmp_path, races=True)
    assert sum(map(len, known.values())) == 60


def test_all_that_was_found_survives_in_the_table(tmp_path: Path) -> None:
    groups = {group.name: group.size for group in GROUPS}
    widths = {group.name: 16 for group in GROUPS}
    value = found(widths)
    with EvaluationTable(tmp_path / EVALUATIONS, groups) as table:
        table.begin_batch("laptop", [widths])
        table.add(widths, value, "laptop")
        table.add(widths, Evaluated(0.25, is_partial=True), "laptop")
    with EvaluationTable(tmp_path / EVALUATIONS, groups) as table:
        read, lost = (one.evaluated for one in table.evaluations)
    assert read == value and read.samples is not None and value.samples is not None
    np.testing.assert_array_equal(read.samples.contributions, value.samples.contributions)
    assert lost == Evaluated(0.25, is_partial=True)


def test_a_front_has_its_ends_even_if_no_time_is_left(tmp_path: Path) -> None:
    clock = SearchClock(Time(-5.0), evaluation_s=1.0)
    outcome = run_search(
        [device()], lambda batch: [found(one) for one in batch], BUDGET, tmp_path, clock=clock
    )
    assert outcome.stopped == "time" and len(outcome.evaluations) == 3
    assert len(outcome.devices[0].front) >= 1
