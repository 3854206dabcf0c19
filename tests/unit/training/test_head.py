from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import evaluate_module
from inn_automl.integral import IntegralNetwork
from inn_automl.tasks import Task
from inn_automl.training.head import fit_head
from inn_automl.training.optimizer import make_optimizer
from inn_automl.training.recipe import default_recipe, pretrained_recipe
from inn_automl.training.run import TrainingRun
from tests.unit.training.small_trainings import TINY, assert_same, make, state_of


def network_of(head: nn.Module) -> IntegralNetwork:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), head)
    return IntegralNetwork(module, torch.zeros(2, 2, 8, 8))


def test_only_the_head_is_fitted_and_it_learns(images: Dataset) -> None:
    network, task = network_of(nn.Linear(24 * 36, 3)), Task.from_dataset(images)
    before = state_of(network)
    assert fit_head(network, task.train, 60)
    after = state_of(network)
    assert [n for n in after if not torch.equal(after[n], before[n])] == [
        "module.4.weight", "module.4.bias",
    ]  # fmt: skip
    assert evaluate_module(network.module.eval(), task.test).value >= 0.9
    assert all(p.grad is None for p in network.parameters())


def test_a_linear_layer_that_is_not_the_last_is_left_alone(images: Dataset) -> None:
    network = network_of(nn.Sequential(nn.Linear(24 * 36, 3), nn.Tanh()))
    before = state_of(network)
    assert not fit_head(network, Task.from_dataset(images).train, 60)
    assert_same(state_of(network), before)


def test_a_training_fits_the_head_once(signals: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        "inn_automl.training.run.fit_head", lambda network, samples, num: calls.append(num)
    )
    recipe = dataclasses.replace(TINY, head_samples=30)
    run = TrainingRun.from_task(make(signals, "signal"), Task.from_dataset(signals), recipe, 0)
    for epoch in (1, 2):
        run.epoch(epoch, None)
    assert calls == [30]


def test_first_layers_learn_slower(signals: Dataset) -> None:
    network = make(signals, "signal")
    recipe = dataclasses.replace(TINY, first_layer_rate=0.01)
    optimizer, parameters = make_optimizer(network, recipe)
    rate = {id(p): group["rate"] for group in optimizer.param_groups for p in group["params"]}
    rates = [rate[id(p)] for _, p in network.named_parameters()]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (pytest.approx(0.01), 1.0)
    assert np.isclose(
        np.diff(np.log(sorted(set(rates)))), np.log(rates[-1] / rates[0]) / (len(set(rates)) - 1)
    ).all()
    assert list(map(id, parameters.values())) == [
        id(p) for group in optimizer.param_groups for p in group["params"]
    ]


def test_steps_follow_the_rates_of_layers(signals: Dataset) -> None:
    task = Task.from_dataset(signals)
    moved = []
    for first in (1.0, 1e-6):
        recipe = dataclasses.replace(TINY, optimizer="adamw", first_layer_rate=first)
        run = TrainingRun.from_task(make(signals, "signal"), task, recipe, 0)
        _, parameter = next(iter(run.network.named_parameters()))
        before = parameter.detach().clone()
        run.steps(1, 5)
        moved.append(float((parameter - before).detach().abs().max()))
    assert moved[1] < moved[0] / 1000


def test_pretrained_networks_start_from_their_features() -> None:
    base = dataclasses.replace(default_recipe("mobilenet", 500), transforms=("flip",))
    recipe = pretrained_recipe(base, 500)
    assert recipe.transforms == ("flip",)
    assert (recipe.optimizer, recipe.head_samples) == ("adamw", 500)
    assert recipe.first_layer_rate < 1 and recipe.learning_rate < base.learning_rate
    assert pretrained_recipe(base, 50_000, "regression").label_smoothing == 0
