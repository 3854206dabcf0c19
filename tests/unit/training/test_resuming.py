"""Checkpoints of a training: interrupted, finished, refused; and the state that is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inn_automl.core.errors import TrainingError
from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training.loop import EpochReport, load_best, train
from tests.unit.training.small_trainings import (
    SANDWICH,
    TINY,
    assert_same,
    make,
    scripted,
    state_of,
)


def without_time(history: list[EpochReport]) -> list[EpochReport]:
    return [dataclasses.replace(report, seconds=0.0) for report in history]


class Interrupt(Exception):
    pass


def interrupt_after(epoch: int) -> Callable[[EpochReport], None]:
    def on_epoch(report: EpochReport) -> None:
        if report.epoch == epoch:
            raise Interrupt

    return on_epoch


@pytest.mark.parametrize(
    ("kind", "family", "optimizer"),
    [("images", "convnet", "sgd"), ("images", "mlp", "adamw"), ("signals", "signal", "sgd")],
)
def test_a_resumed_training_ends_in_the_same_bits(
    kind: str, family: str, optimizer: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    recipe = dataclasses.replace(
        TINY, optimizer=optimizer, learning_rate=0.05 if optimizer == "sgd" else 0.005
    )
    whole = make(dataset, family)
    expected = train(whole, Task.from_dataset(dataset), recipe, seed=5)

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupt):
        train(
            make(dataset, family),
            Task.from_dataset(dataset),
            recipe,
            seed=5,
            checkpoint=path,
            on_epoch=interrupt_after(2),
        )
    torch.rand(7)  # another process has another random state, and another initial network
    resumed = make(dataset, family, seed=99)
    result = train(resumed, Task.from_dataset(dataset), recipe, seed=5, checkpoint=path)
    assert_same(state_of(resumed), state_of(whole))
    assert without_time(result.history) == without_time(expected.history)
    assert (result.epochs_done, result.best_score, result.stopped) == (
        4,
        expected.best_score,
        "epochs",
    )


def test_a_resumed_training_goes_on_from_its_last_state_and_keeps_its_best(
    signals: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    whole = scripted(monkeypatch, 0.9, 0.1, 0.2, 0.3)
    train(make(signals, "signal"), Task.from_dataset(signals), SANDWICH, seed=0)
    parts = scripted(monkeypatch, 0.9, 0.1, 0.2, 0.3)
    with pytest.raises(Interrupt):
        train(
            make(signals, "signal"),
            Task.from_dataset(signals),
            SANDWICH,
            seed=0,
            checkpoint=path,
            on_epoch=interrupt_after(2),
        )
    network = make(signals, "signal")
    assert train(
        network, Task.from_dataset(signals), SANDWICH, seed=0, checkpoint=path
    ).best_score == pytest.approx(0.9)
    assert_same(parts[3], whole[3])
    assert_same(state_of(network), whole[0])


def test_a_finished_training_is_not_repeated(signals: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    first = make(signals, "signal")
    train(first, Task.from_dataset(signals), TINY, seed=0, checkpoint=path)
    again, calls = make(signals, "signal", seed=1), []
    result = train(
        again, Task.from_dataset(signals), TINY, seed=0, checkpoint=path, on_epoch=calls.append
    )
    assert not calls
    assert len(result.history) == 4
    assert_same(state_of(again), state_of(first))


def test_the_best_state_is_kept(signals: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    states = scripted(monkeypatch, 0.2, 0.9, 0.9, 0.4)
    network = make(signals, "signal")
    result = train(network, Task.from_dataset(signals), SANDWICH, seed=0)
    assert result.best_score == pytest.approx(0.9)
    assert_same(state_of(network), states[2])  # of equals the later


def test_the_best_state_is_one_that_all_widths_were_trained_for(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = scripted(monkeypatch, 0.9, 0.8, 0.3, 0.2)
    network = make(signals, "signal")
    assert train(network, Task.from_dataset(signals), TINY, seed=0).best_score == pytest.approx(0.3)
    assert_same(state_of(network), states[2])


def test_the_best_state_can_be_taken_from_a_checkpoint(signals: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    network = make(signals, "signal")
    result = train(network, Task.from_dataset(signals), TINY, seed=0, checkpoint=path)
    other = make(signals, "signal", seed=1)
    history, score = load_best(other, path)
    assert (history, score) == (result.history, result.best_score)
    assert_same(state_of(other), state_of(network))


def test_a_checkpoint_of_another_training_is_refused(signals: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    train(
        make(signals, "signal"),
        Task.from_dataset(signals),
        dataclasses.replace(TINY, epochs=1),
        seed=0,
        checkpoint=path,
    )
    with pytest.raises(TrainingError, match=r"differs in seed, recipe.*delete it"):
        train(make(signals, "signal"), Task.from_dataset(signals), TINY, seed=1, checkpoint=path)
