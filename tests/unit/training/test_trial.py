from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from inn_automl.core.errors import CorruptFileError
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import evaluate_widths
from inn_automl.models.architecture import Architecture
from inn_automl.pipeline.backend import best_first
from inn_automl.tasks import Task
from inn_automl.training import trial
from inn_automl.training.loop import EpochReport
from inn_automl.training.recipe import Recipe, TrialSpec
from inn_automl.training.trial import load_trial, run_trial, salvage_trial

CANDIDATE = TrialSpec(Recipe(batch_size=16, learning_rate=0.05, epochs=1), width=0.25, depth=2)
EPOCHS = 3


class Interrupt(Exception):
    pass


def interrupt(report: EpochReport) -> None:
    if report.epoch == 2:
        raise Interrupt


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Plans made, each for the epochs that a trial is allowed: how many fit is timing, which no
    test depends on.
    """
    made = []

    def fit(network: Any, task: Task, recipe: Recipe, *, max_epochs: int, **rest: Any) -> Recipe:
        made.append(dataclasses.replace(recipe, epochs=max_epochs))
        return made[-1]

    monkeypatch.setattr(trial, "fit_to_budget", fit)
    return made


def run(dataset: Dataset, folder: Path, **arguments: Any) -> trial.Trained:
    return run_trial(
        CANDIDATE,
        "signal",
        Task.from_dataset(dataset),
        folder,
        seed=3,
        seconds=600,
        **{"max_epochs": EPOCHS, **arguments},
    )


def nodes(folder: Path) -> dict[str, torch.Tensor]:
    return Architecture("signal", (1, 24), 3, 0.25, 2).load(folder).state_dict()


def test_a_trial_leaves_the_network_that_reached_its_score(
    signals: Dataset, tmp_path: Path
) -> None:
    trained = run(signals, tmp_path)
    assert (trained.stopped, trained.recipe.epochs, len(trained.history)) == (
        "epochs",
        EPOCHS,
        EPOCHS,
    )
    learned = [report for report in trained.history if not report.is_warmup]
    assert trained.score == trained.best_score == max(report.score for report in learned)
    network = trained.network()
    best = max(learned, key=lambda report: (report.score, report.epoch))
    full = evaluate_widths(
        network, network.full_widths, Task.from_dataset(signals), num_recalibration=512
    )
    assert full.value == pytest.approx(best.metric_values["full"])
    assert load_trial(tmp_path) == trained


def test_an_interrupted_trial_goes_on_by_its_first_plan(
    signals: Dataset, tmp_path: Path, plans: list[Recipe]
) -> None:
    whole = run(signals, tmp_path / "whole")
    with pytest.raises(Interrupt):
        run(signals, tmp_path / "cut", on_epoch=interrupt)
    resumed = run(signals, tmp_path / "cut", max_epochs=99)
    assert resumed.recipe == whole.recipe
    assert len(plans) == 2
    assert resumed.best_score == whole.best_score
    one, other = nodes(whole.folder), nodes(resumed.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_trial_is_not_repeated(
    signals: Dataset, tmp_path: Path, plans: list[Recipe]
) -> None:
    first = run(signals, tmp_path)
    reports: list[EpochReport] = []
    assert run(signals, tmp_path, on_epoch=reports.append) == first
    assert not reports
    assert len(plans) == 1


def test_a_trial_that_never_learned_reduced_widths_is_behind_those_that_did(
    signals: Dataset, tmp_path: Path
) -> None:
    def interrupt_first(report: EpochReport) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        run(signals, tmp_path / "plain", on_epoch=interrupt_first)
    plain = salvage_trial(
        CANDIDATE, "signal", Task.from_dataset(signals), tmp_path / "plain", seed=3
    )
    assert plain is not None and plain.history[-1].is_warmup
    plain = dataclasses.replace(plain, best_score=1.0)
    assert plain.score == -math.inf
    learned = run(signals, tmp_path / "learned")
    assert best_first([plain, None, learned], []) == [learned, plain]


def test_a_stopped_trial_is_salvaged_from_its_checkpoint(signals: Dataset, tmp_path: Path) -> None:
    assert salvage_trial(CANDIDATE, "signal", Task.from_dataset(signals), tmp_path, seed=3) is None
    with pytest.raises(Interrupt):
        run(signals, tmp_path, on_epoch=interrupt)
    salvaged = salvage_trial(CANDIDATE, "signal", Task.from_dataset(signals), tmp_path, seed=3)
    assert salvaged is not None
    assert (salvaged.stopped, [report.epoch for report in salvaged.history]) == ("rival", [1, 2])
    network = salvaged.network()
    learned = [report for report in salvaged.history if not report.is_warmup]
    best = max(learned, key=lambda report: (report.score, report.epoch))
    full = evaluate_widths(
        network, network.full_widths, Task.from_dataset(signals), num_recalibration=512
    )
    assert full.value == pytest.approx(best.metric_values["full"])
    assert (
        salvage_trial(CANDIDATE, "signal", Task.from_dataset(signals), tmp_path, seed=3) == salvaged
    )
    assert run(signals, tmp_path) == salvaged


def test_an_unreadable_outcome_is_reported(signals: Dataset, tmp_path: Path) -> None:
    run(signals, tmp_path)
    (tmp_path / "outcome.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"outcome\.json"):
        load_trial(tmp_path)


def test_an_architecture_survives_json() -> None:
    architecture = Architecture("convnet", (1, 8, 8), 10, 0.5, 3)
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


def test_the_seed_decides_on_the_initial_network_and_the_global_random_state_is_left_alone() -> (
    None
):
    architecture = Architecture("signal", (1, 24), 3, 0.25, 2)
    before = torch.get_rng_state()
    one, same, other = (architecture.network(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
