from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from inn_automl.core.errors import BackendError, JobDirectoryError, SpecError, StorageError
from inn_automl.core.spec import SearchBudget
from inn_automl.width_search.evaluations import EvaluationTable
from inn_automl.width_search.initial_design import NUM_INITIAL
from inn_automl.width_search.pareto import pareto_front
from inn_automl.width_search.run import run_search
from inn_automl.width_search.study import WidthStudy
from tests.unit.width_search.search_samples import GROUPS, TINY, accuracy_of, device

ROOT = Path(__file__).parents[3]


def two_devices():
    return [
        device("slow", max_latency_ms=20.0),
        device("fast", max_latency_ms=14.0, granularity=4, margin=0.02),
    ]


def evaluate(batch):
    return [accuracy_of(widths) for widths in batch]


def budget(num, batch=6, patience=50):
    return SearchBudget(max_evaluations=num, batch_size=batch, patience=patience)


def key(widths):
    return tuple(widths.values())


def same(one, other):
    assert one.evaluations == other.evaluations
    assert one.devices == other.devices
    assert one.stopped == other.stopped


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_search(
        two_devices(),
        evaluate,
        budget(40),
        tmp_path_factory.mktemp("state"),
        baseline=0.25,
    )


def test_every_accuracy_is_evaluated_once_and_counts_for_all_devices(tmp_path):
    asked = Counter()

    def counted(batch):
        asked.update(map(key, batch))
        return evaluate(batch)

    seen = []
    outcome = run_search(
        two_devices(), counted, budget(40), tmp_path, baseline=0.25, on_batch=seen.append
    )
    assert outcome.stopped == "budget" and "40" in outcome.reason
    assert len(asked) == len(outcome.evaluations) == 40 and set(asked.values()) == {1}
    assert {one.device for one in outcome.evaluations} == {"slow", "fast"}
    slow, fast = outcome.devices
    for found, target in zip(outcome.devices, two_devices(), strict=True):
        assert [one.widths for one in found.candidates] == [
            one.widths for one in outcome.evaluations
        ]
        assert [one.prediction for one in found.candidates] == target.predict(
            [c.widths for c in found.candidates]
        )
        assert [one.feasible for one in found.candidates] == [
            target.feasible(c.prediction) for c in found.candidates
        ]
        feasible = [i for i, one in enumerate(found.candidates) if one.feasible]
        expected = pareto_front(
            [found.candidates[i].prediction.latency_ms for i in feasible],
            [found.candidates[i].metric_value for i in feasible],
        )
        assert list(found.front) == [feasible[i] for i in expected]
        assert list(found.hypervolume) == sorted(found.hypervolume) and found.hypervolume[0] > 0
        assert len(found.hypervolume) == len(seen) == outcome.evaluations[-1].batch + 1
    # What one device asked for ends on the front of the other.
    assert {outcome.evaluations[i].device for i in slow.front} == {"slow", "fast"}
    assert any(not one.feasible for one in fast.candidates)
    last = seen[-1]
    assert last.num_evaluations == last.max_evaluations == 40
    assert last.hypervolume == {found.name: found.hypervolume[-1] for found in outcome.devices}
    best = outcome.devices[0].candidates[slow.front[-1]]
    assert last.best["slow"] == (best.prediction.latency_ms, best.metric_value)


def test_the_same_seed_finds_the_same(tmp_path, uninterrupted):
    again = run_search(two_devices(), evaluate, budget(40), tmp_path / "a", baseline=0.25)
    same(again, uninterrupted)
    other = run_search(two_devices(), evaluate, budget(40), tmp_path / "b", seed=1, baseline=0.25)
    assert other.evaluations != uninterrupted.evaluations


def test_a_finished_search_evaluates_nothing_more(tmp_path):
    first = run_search(two_devices(), evaluate, budget(12), tmp_path)
    same(
        run_search(
            two_devices(), lambda batch: pytest.fail("evaluated again"), budget(12), tmp_path
        ),
        first,
    )


def test_interrupted_anywhere_it_ends_as_if_nothing_had_happened(tmp_path, uninterrupted):
    recorded, outcome = [], None
    for _ in range(40):

        def interrupted(batch):
            for number, widths in enumerate(batch):
                if number == 4:
                    raise KeyboardInterrupt
                yield accuracy_of(widths)

        outcome = run_search(two_devices(), interrupted, budget(40), tmp_path, baseline=0.25)
        if outcome.stopped != "interrupted":
            break
        assert "to resume" in outcome.reason
        recorded.append(outcome.evaluations)
    assert len(recorded) >= 6
    for before, after in zip(recorded, [*recorded[1:], outcome.evaluations], strict=True):
        assert after[: len(before)] == before  # nothing is lost
    same(outcome, uninterrupted)


def test_killed_at_any_write_it_ends_as_if_nothing_had_happened(
    tmp_path, uninterrupted, monkeypatch
):
    class Killed(BaseException):
        """Not an Exception, so that nothing but a kill could look like it."""

    left = 0

    def deadly(write):
        def wrapped(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            write(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(EvaluationTable, "_append", deadly(EvaluationTable._append))
    outcome, kills = None, 0
    while outcome is None:
        left = 4 + kills % 7
        try:
            outcome = run_search(two_devices(), evaluate, budget(40), tmp_path, baseline=0.25)
        except Killed:
            kills += 1
    assert kills >= 6
    same(outcome, uninterrupted)


def test_a_process_killed_by_the_system_resumes(tmp_path, uninterrupted):
    script = """
import os, signal, sys
from pathlib import Path
from inn_automl.width_search.run import run_search
from inn_automl.width_search.study import WidthStudy
from tests.unit.width_search.test_run import accuracy_of, budget, two_devices

def evaluate(batch):
    for number, widths in enumerate(batch):
        yield accuracy_of(widths)
        state = Path(sys.argv[1], "evaluations.jsonl").read_text()
        if number == 3 and state.count("finished") == 2:
            os.kill(os.getpid(), signal.SIGKILL)

run_search(two_devices(), evaluate, budget(40), Path(sys.argv[1]), baseline=0.25)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    num = (tmp_path / "evaluations.jsonl").read_text().count("metric_value")
    assert 10 < num < 20

    asked = []

    def counted(batch):
        asked.extend(map(key, batch))
        return evaluate(batch)

    outcome = run_search(two_devices(), counted, budget(40), tmp_path, baseline=0.25)
    assert len(asked) == 40 - num
    same(outcome, uninterrupted)


def test_a_larger_budget_continues_the_search(tmp_path):
    first = run_search(two_devices(), evaluate, budget(18), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"evaluations.jsonl", "lock"}
    more = run_search(two_devices(), evaluate, budget(24), tmp_path)
    assert (
        more.evaluations[:18] == first.evaluations
        and len({key(one.widths) for one in more.evaluations}) == 24
    )


def test_studies_are_those_of_optuna(tmp_path):
    outcome = run_search(two_devices(), evaluate, budget(18), tmp_path)
    _, target = two_devices()
    study = WidthStudy(target)
    for one in outcome.evaluations:
        study.tell(one.widths, one.metric_value)
    study = study.optuna_study
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    found = {key(trial.params): trial.values for trial in study.trials}
    for one in outcome.devices[1].candidates:
        assert found[key(one.widths)] == [one.prediction.latency_ms, one.metric_value]


def test_a_batch_of_a_device_that_left_is_evaluated_for_another(tmp_path):
    def failing(batch):
        yield accuracy_of(batch[0])
        raise BackendError("a worker died")

    first, second = two_devices()
    with pytest.raises(BackendError, match="a worker died"):
        run_search([first], failing, budget(12), tmp_path)
    outcome = run_search([second], evaluate, budget(12), tmp_path)
    assert len(outcome.evaluations) == 12
    assert all(second.feasible(one.prediction) for one in outcome.devices[0].candidates[1:])


def test_one_process_at_a_time(tmp_path):
    def nested(batch):
        with pytest.raises(JobDirectoryError, match="another process"):
            run_search(two_devices(), evaluate, budget(6), tmp_path)
        return evaluate(batch)

    assert len(run_search(two_devices(), nested, budget(6), tmp_path).evaluations) == 6


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        run_search(two_devices(), evaluate, budget(6), tmp_path / "file")


def test_a_device_added_later_starts_from_what_is_known(tmp_path):
    first = run_search([device("slow", max_latency_ms=20.0)], evaluate, budget(18), tmp_path)
    devices = [device("slow", max_latency_ms=20.0), device("new", max_latency_ms=11.0)]
    more = run_search(devices, evaluate, budget(30), tmp_path)
    assert more.evaluations[:18] == first.evaluations
    assert {one.device for one in more.evaluations[18:]} == {"slow", "new"}
    assert more.devices[1].hypervolume[0] > 0


def test_it_stops_when_hypervolume_stalls(tmp_path):
    outcome = run_search(
        [device(max_latency_ms=20.0)],
        lambda batch: [0.5] * len(batch),
        budget(500, batch=6, patience=3),
        tmp_path,
    )
    assert outcome.stopped == outcome.devices[0].stopped == "stalled"
    assert "less than 0.1% in 3 batches" in outcome.reason
    # The smallest network, in the first batch, has the largest hypervolume there can be.
    assert (
        len(outcome.devices[0].hypervolume) == 4 and len(set(outcome.devices[0].hypervolume)) == 1
    )


def test_every_device_has_its_turn_before_a_stall(tmp_path):
    devices = [device(f"d{i}", max_latency_ms=20.0 - i) for i in range(3)]
    outcome = run_search(
        devices, lambda batch: [0.5] * len(batch), budget(500, batch=2, patience=1), tmp_path
    )
    assert outcome.stopped == "stalled" and len(outcome.devices[0].hypervolume) == 4


def test_it_stops_when_the_space_is_exhausted(tmp_path):
    outcome = run_search([device(groups=TINY)], evaluate, budget(100), tmp_path)
    assert outcome.stopped == outcome.devices[0].stopped == "exhausted"
    assert len(outcome.evaluations) == 9 and "all feasible widths are evaluated" in outcome.reason


def test_a_device_that_nothing_fits_leaves_its_turns_to_the_others(tmp_path):
    devices = [device("impossible", max_latency_ms=7.0), device("slow", max_latency_ms=20.0)]
    outcome = run_search(devices, evaluate, budget(20), tmp_path)
    impossible, slow = outcome.devices
    assert outcome.stopped == slow.stopped == "budget" and impossible.stopped == "exhausted"
    assert (
        impossible.front == ()
        and impossible.reason == "No widths are predicted to keep the bounds."
    )
    assert {one.device for one in outcome.evaluations} == {"slow"} and set(
        impossible.hypervolume
    ) == {0.0}
    nothing = run_search(
        [device("impossible", max_latency_ms=7.0)], evaluate, budget(20), tmp_path / "alone"
    )
    assert (
        nothing.stopped == "exhausted"
        and nothing.evaluations == ()
        and nothing.devices[0].hypervolume == ()
    )


@pytest.mark.parametrize("as_generator", [True, False])
def test_it_stops_when_asked_to_and_goes_on(tmp_path, as_generator, uninterrupted):
    num = 0

    def counted(batch):
        nonlocal num
        for widths in batch:
            num += 1
            yield accuracy_of(widths)

    outcome = run_search(
        two_devices(),
        counted if as_generator else lambda batch: list(counted(batch)),
        budget(40),
        tmp_path,
        baseline=0.25,
        should_stop=lambda: num >= 15,
    )
    assert outcome.stopped == "interrupted" and (len(outcome.evaluations) == 15) == as_generator
    assert len(outcome.evaluations) == num  # what was evaluated is kept
    same(
        run_search(two_devices(), evaluate, budget(40), tmp_path, baseline=0.25),
        uninterrupted,
    )


def test_a_small_budget_spends_exactly_itself(tmp_path):
    assert len(run_search(two_devices(), evaluate, budget(7, batch=5), tmp_path).evaluations) == 7
    assert NUM_INITIAL > 7


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda batch: [0.5] * (len(batch) - 1), "returned 3"),
        (lambda batch: [0.5] * (len(batch) + 1), "result 5"),
        (lambda batch: [float("nan")] * len(batch), "nan as result 1"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_refused(tmp_path, wrong, said):
    with pytest.raises(BackendError, match=said):
        run_search(two_devices(), wrong, budget(40), tmp_path)
    assert len(run_search(two_devices(), evaluate, budget(12), tmp_path).evaluations) == 12


def test_an_error_of_the_evaluation_keeps_what_was_found(tmp_path):
    def failing(batch):
        yield accuracy_of(batch[0])
        raise BackendError("a worker died")

    with pytest.raises(BackendError, match="a worker died"):
        run_search(two_devices(), failing, budget(12), tmp_path)
    asked = []
    run_search(
        two_devices(), lambda batch: asked.extend(batch) or evaluate(batch), budget(12), tmp_path
    )
    assert len(asked) == 11


def test_devices_must_have_names_of_their_own(tmp_path):
    for devices in ([], [device("a"), device("a")]):
        with pytest.raises(SpecError, match="at least one"):
            run_search(devices, evaluate, budget(5), tmp_path)


def test_the_folder_of_another_network_is_refused(tmp_path):
    run_search([device()], evaluate, budget(3), tmp_path)
    with pytest.raises(JobDirectoryError, match="coupled groups"):
        run_search([device(groups=GROUPS[:2])], evaluate, budget(3), tmp_path)
