from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from inn_automl.core.errors import TrainingError
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import evaluate_widths
from inn_automl.integral import IntegralNetwork
from inn_automl.tasks import Task
from inn_automl.training import run, step
from inn_automl.training.loop import EpochReport, load_best, train
from inn_automl.training.sandwich import sandwich_gradients
from tests.unit.training.small_trainings import (
    SANDWICH,
    TINY,
    Clock,
    assert_same,
    make,
    state_of,
)


@pytest.mark.parametrize("is_augmented", [False, True])
def test_every_epoch_takes_every_sample_in_an_order_and_variant_of_its_own(
    signals: Dataset, is_augmented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def gradients(
        network: IntegralNetwork, x: torch.Tensor, *rest: object, **more: object
    ) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(())

    monkeypatch.setattr(step, "sandwich_gradients", gradients)
    recipe = dataclasses.replace(TINY, augment=is_augmented)
    one = run.TrainingRun.from_task(make(signals, "signal"), Task.from_dataset(signals), recipe, 0)
    for epoch in (1, 2, 1):
        one.steps(epoch, 5)
    first, second, again = (torch.cat(seen[start : start + 5]) for start in (0, 5, 10))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    everything = one.batches.samples.standardized(slice(None))
    nearest = torch.cdist(first.flatten(1), everything.flatten(1)).min(1)
    assert bool((nearest.values > 1e-3).all()) == is_augmented
    if not is_augmented:
        assert sorted(nearest.indices.tolist()) == list(range(80))


def test_seeds_decide_on_a_training_and_leave_the_global_random_state_alone(
    signals: Dataset,
) -> None:
    networks = []
    for seed in (1, 1, 2):
        network = make(signals, "signal")
        before = torch.get_rng_state()
        train(network, Task.from_dataset(signals), TINY, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        networks.append(state_of(network))
    assert_same(networks[0], networks[1])
    assert any(not torch.equal(networks[0][name], networks[2][name]) for name in networks[0])


@pytest.mark.parametrize(
    ("kind", "family", "changes"),
    [
        ("signals", "signal", {}),
        ("images", "convnet", {"schedule": "onecycle", "label_smoothing": 0.1}),
        ("images", "mlp", {"optimizer": "adamw", "learning_rate": 0.01, "augment": False}),
    ],
)
def test_every_width_learns(
    kind: str, family: str, changes: dict, request: pytest.FixtureRequest
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    network = make(dataset, family, width=1.0)
    reports: list[EpochReport] = []
    recipe = dataclasses.replace(TINY, epochs=20, **changes)
    result = train(network, Task.from_dataset(dataset), recipe, seed=0, on_epoch=reports.append)
    assert reports == result.history
    assert [r.epoch for r in reports] == list(range(1, 21))
    assert reports[-1].train_loss < reports[0].train_loss / 1.5
    assert [r.is_warmup for r in reports] == [True] * 10 + [False] * 10
    assert result.best_score == max(r.score for r in reports if not r.is_warmup)
    for widths in (network.smallest_widths, network.uniform_widths(0.5), network.full_widths):
        assert (
            evaluate_widths(network, widths, Task.from_dataset(dataset), split="test").value >= 0.75
        )
    assert not network.training
    assert all(p.grad is None and p.is_contiguous() for p in network.parameters())


def test_the_full_width_learns_alone_at_first(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced: list[tuple[int, bool]] = []

    def record(
        network: IntegralNetwork, x: torch.Tensor, y: torch.Tensor, widths: Any, **more: Any
    ) -> torch.Tensor:
        reduced.append((len(widths), more["distillation_batch"] is None))
        return sandwich_gradients(network, x, y, widths, **more)

    monkeypatch.setattr(step, "sandwich_gradients", record)
    result = train(make(signals, "signal"), Task.from_dataset(signals), TINY, seed=0)
    assert reduced == [(0, True)] * 10 + [(1 + TINY.num_random_widths, False)] * 10
    assert [list(r.metric_values) for r in result.history] == [["full"]] * 2 + [
        ["smallest", "middle", "full"]
    ] * 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_full_width_goes_on_as_it_would_in_another_order_of_its_channels(
    signals: Dataset, optimizer: str
) -> None:
    x, outputs, orders = torch.randn(8, *signals.input_shape), [], []
    for is_prepared in (False, True):
        one = run.TrainingRun.from_task(
            make(signals, "signal"),
            Task.from_dataset(signals),
            dataclasses.replace(TINY, optimizer=optimizer),
            0,
        )
        one.steps(1, 5)
        if is_prepared:
            before = state_of(one.network)
            one.prepare_reduced_widths()
            orders = [
                name
                for name, value in state_of(one.network).items()
                if not torch.equal(value, before[name])
            ]
        one.steps(2, 5)
        with torch.no_grad():
            outputs.append((one.network.eval()(x), one.step.teacher.outputs(x)))
    assert orders and any(name.startswith("width_deltas.") for name in orders)
    for found, expected in zip(outputs[1], outputs[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_widths_are_prepared_where_time_ends_before_they_are_learned(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(TINY, epochs=16)
    monkeypatch.setattr(run.time, "monotonic", Clock(1.0))
    network = make(signals, "signal")
    result = train(network, Task.from_dataset(signals), recipe, seed=0, deadline_s=60.0)
    assert result.stopped == "deadline" and all(r.is_warmup for r in result.history)
    assert any(bool(delta.count_nonzero()) for delta in network.width_deltas)
    monkeypatch.setattr(run.TrainingRun, "prepare_reduced_widths", lambda self: None)
    monkeypatch.setattr(run.time, "monotonic", Clock(1.0))
    unprepared = make(signals, "signal")
    train(unprepared, Task.from_dataset(signals), recipe, seed=0, deadline_s=60.0)
    assert any(
        not torch.equal(p, q)
        for p, q in zip(network.parameters(), unprepared.parameters(), strict=True)
    )
    x = torch.randn(8, *signals.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(network(x), unprepared(x), rtol=1e-4, atol=1e-4)


def test_too_few_samples_to_tell_channels_apart_leave_them_as_they_are(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run.TrainingRun.from_task(make(signals, "signal"), Task.from_dataset(signals), TINY, 0)
    monkeypatch.setattr(
        run, "reconstruction_samples", lambda calibration: calibration.standardized(slice(0, 1))
    )
    before = state_of(one.network)
    one.prepare_reduced_widths()
    assert_same(state_of(one.network), before)


def test_a_deadline_in_the_middle_of_an_epoch_stops_there(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    clock = Clock(1.0)
    monkeypatch.setattr(run.time, "monotonic", clock)
    network = make(signals, "signal")
    result = train(
        network, Task.from_dataset(signals), TINY, seed=0, checkpoint=path, deadline_s=16.0
    )
    assert result.stopped == "deadline"
    assert result.epochs_done == 1
    assert len(result.history) == 2  # the epoch cut short was validated as well
    assert result.best_score == max(r.score for r in result.history)
    # What a checkpoint continues is the last whole epoch.
    assert [r.epoch for r in load_best(network, path)[0]] == [1]


def test_a_deadline_that_has_passed_still_gives_a_validated_result(signals: Dataset) -> None:
    result = train(
        make(signals, "signal"), Task.from_dataset(signals), TINY, seed=0, deadline_s=0.0
    )
    assert (result.epochs_done, result.stopped) == (0, "deadline")
    assert 0 <= result.best_score <= 1


def test_divergence_names_epoch_rate_and_remedy(signals: Dataset) -> None:
    recipe = dataclasses.replace(TINY, learning_rate=1e30, max_gradient_norm=None)
    with pytest.raises(
        TrainingError,
        match=r"loss is (nan|inf) in epoch 1 at learning rate \S+; give a lower .*3.3e\+29",
    ):
        train(make(signals, "mlp"), Task.from_dataset(signals), recipe, seed=0)


def test_frozen_parameters_stay(signals: Dataset) -> None:
    network = make(signals, "signal")
    name, frozen = next(iter(network.named_parameters()))
    frozen.requires_grad_(False)
    before = frozen.clone()
    train(network, Task.from_dataset(signals), dataclasses.replace(TINY, epochs=1), seed=0)
    assert torch.equal(dict(network.named_parameters())[name], before)


def test_every_width_sees_each_sample_once_an_epoch_and_reduced_ones_others_in_a_step(
    signals: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(
        network: IntegralNetwork, x: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        batches.append((x, kwargs["distillation_batch"][0]))
        return sandwich_gradients(network, x, *args, **kwargs)

    monkeypatch.setattr(step, "sandwich_gradients", record)
    train(
        make(signals, "signal"),
        Task.from_dataset(signals),
        dataclasses.replace(SANDWICH, epochs=1, augment=False),
        seed=0,
    )
    for seen in zip(*batches, strict=True):
        rows = torch.cat(seen).flatten(1)
        assert len(rows) == len(batches) * TINY.batch_size == len(rows.unique(dim=0))
    for full, narrow in batches:
        assert not torch.equal(full, narrow)


def test_weights_decay_and_normalization_does_not(signals: Dataset) -> None:
    network = make(signals, "signal")
    optimizer = run.TrainingRun.from_task(
        network, Task.from_dataset(signals), TINY, 0
    ).step.optimizer
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == TINY.weight_decay
    assert plain["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(network.parameters()))


def test_a_batch_larger_than_the_data_is_all_of_it(signals: Dataset) -> None:
    recipe = dataclasses.replace(TINY, epochs=1, batch_size=10_000)
    assert (
        run.TrainingRun.from_task(
            make(signals, "signal"), Task.from_dataset(signals), recipe, 0
        ).batches.steps_per_epoch
        == 1
    )
    assert (
        train(make(signals, "signal"), Task.from_dataset(signals), recipe, seed=0).epochs_done == 1
    )
