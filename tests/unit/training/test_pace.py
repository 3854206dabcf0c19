"""Trainings whose schedule follows the clock."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training import run
from inn_automl.training.loop import TrainingResult, train
from inn_automl.training.pace import Pace
from inn_automl.training.schedule import learning_rate_after
from tests.unit.training.small_trainings import TINY, make

TIMED = dataclasses.replace(TINY, is_timed=True)


class StepClock:
    """Time passes in steps and validations only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step_s: float = 1.0) -> None:
        self.now, self.rates, self.num_widths = 0.0, list[float](), list[int]()
        take, validate = run.SandwichStep.take, run.TrainingRun.validate

        def taken(step: Any, full: Any, narrow: Any, widths: Any, rate: float) -> Any:
            self.now += step_s
            self.rates.append(rate)
            self.num_widths.append(len(widths))
            return take(step, full, narrow, widths, rate)

        def validated(one: run.TrainingRun, names: Any = None) -> dict[str, float]:
            values = validate(one, names)
            self.now += 0.5
            one.validation_s = 0.5
            return values

        monkeypatch.setattr(run.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(run.SandwichStep, "take", taken)
        monkeypatch.setattr(run.TrainingRun, "validate", validated)


def trained(dataset: Dataset, recipe: Any, **options: Any) -> TrainingResult:
    return train(make(dataset, "signal"), Task.from_dataset(dataset), recipe, seed=0, **options)


def test_progress_is_the_share_of_the_time_until_the_last_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [10.0]
    monkeypatch.setattr("inn_automl.training.pace.time.monotonic", lambda: now[0])
    pace = Pace(deadline_s=100.0, spent_s=20.0)
    now[0] = 40.0
    assert pace.seconds == 50.0
    assert pace.progress(0.0) == pytest.approx(50 / 110)
    assert pace.progress(10.0) == pytest.approx(50 / 100)
    now[0] = 90.0
    assert pace.progress(10.0) == 1.0
    assert pace.progress(20.0) == 1.0


def test_the_schedule_ends_with_the_time(signals: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock(monkeypatch)
    result = trained(signals, TIMED, deadline_s=40.0)
    assert result.stopped == "deadline"
    assert 38.5 < clock.now <= 40.5
    # Half of the time is warm-up, which cuts its last epoch short.
    assert abs(clock.num_widths.count(0) - len(clock.rates) / 2) <= 2
    assert clock.num_widths == sorted(clock.num_widths)
    assert clock.rates[-1] < learning_rate_after(TIMED, 0.93)
    assert clock.rates.index(max(clock.rates)) <= 3
    assert [r.is_warmup for r in result.history] == sorted(
        (r.is_warmup for r in result.history), reverse=True
    )
    progress = [r.progress for r in result.history]
    assert progress == sorted(progress) and progress[-1] == pytest.approx(1.0, abs=0.02)
    assert result.history[-1].epochs == result.history[-1].epoch


def test_a_bound_of_epochs_ends_it_before(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    StepClock(monkeypatch)
    result = trained(signals, TIMED, deadline_s=40.0, max_epochs=2)
    assert (len(result.history), result.stopped) == (2, "epochs")


def test_a_training_that_is_resumed_goes_on_in_the_time_that_is_left(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, clock = tmp_path / "checkpoint.safetensors", StepClock(monkeypatch)

    def interrupt(report: run.EpochReport) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(signals, TIMED, deadline_s=40.0, checkpoint=path, on_epoch=interrupt)
    spent_s = clock.now
    clock.now, clock.rates = 1000.0, []
    trained(signals, TIMED, deadline_s=1000.0 + 40.0 - spent_s, checkpoint=path)
    assert clock.rates[0] == pytest.approx(learning_rate_after(TIMED, spent_s / 39.5), rel=1e-3)
    assert 38.0 < clock.now - 1000.0 + spent_s <= 40.5
