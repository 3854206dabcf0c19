"""Training for other tasks than classification, with the recipe that they get."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import CandidateBuilder, evaluate_widths
from inn_automl.models.architecture import Architecture
from inn_automl.tasks import Task
from inn_automl.training.loop import train
from inn_automl.training.recipe import default_recipe, recipe_space, trial_specs
from inn_automl.training.sandwich import sandwich_gradients


def test_a_regression_is_learned_at_all_widths(numbers: Dataset) -> None:
    network = Architecture.from_dataset(numbers, "mlp", 0.25, 2).network(seed=0)
    recipe = dataclasses.replace(default_recipe("mlp", 280, "regression"), epochs=15, batch_size=32)
    result = train(network, Task.from_dataset(numbers), recipe, seed=0)
    assert result.history[-1].metric_values["full"] > 0.9
    assert result.best_score == max(report.score for report in result.history)
    assert (
        evaluate_widths(
            network, network.smallest_widths, Task.from_dataset(numbers), split="test"
        ).value
        > 0.7
    )
    made = CandidateBuilder.from_network(network, Task.from_dataset(numbers)).build(
        network.smallest_widths
    )
    assert (
        made.score.value
        >= evaluate_widths(network, network.smallest_widths, Task.from_dataset(numbers)).value
    )


def test_super_resolution_is_learned_at_all_widths(pairs: Dataset) -> None:
    network = Architecture.from_dataset(pairs, "edsr", 0.5, 1).network(seed=0)
    recipe = dataclasses.replace(default_recipe("edsr", 56, "super-resolution"), epochs=40)
    result = train(network, Task.from_dataset(pairs), recipe, seed=0)
    bicubic = Task.from_dataset(pairs).objective.baseline(pairs)
    assert all(value > bicubic for value in result.history[-1].metric_values.values())
    assert (
        evaluate_widths(network, network.full_widths, Task.from_dataset(pairs), split="test").value
        > 20
    )


def test_reduced_widths_add_the_gradients_of_the_objective(numbers: Dataset) -> None:
    network = Architecture.from_dataset(numbers, "mlp", 0.25, 1).network(seed=0).train()
    objective = Task.from_dataset(numbers).objective
    torch.manual_seed(0)
    x, targets, reduced = torch.randn(8, 1, 24), torch.randn(8, 2), network.smallest_widths
    loss = sandwich_gradients(
        network, x, targets, [reduced], objective=objective, label_fraction=0.25
    )
    found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    output = network(x)
    full = (output - targets).square().mean()
    (
        full + (network(x, reduced) - (0.75 * output.detach() + 0.25 * targets)).square().mean()
    ).backward()
    assert float(loss) == pytest.approx(float(full.detach()))
    for one, p in zip(found, network.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(one, p.grad, rtol=1e-4, atol=1e-6)


def test_recipes_know_the_task() -> None:
    assert default_recipe("edsr", 100, "super-resolution").optimizer == "adamw"
    assert (
        default_recipe("convnet", 100, "regression").learning_rate
        < default_recipe("convnet", 100).learning_rate
    )
    low, high = recipe_space("edsr", 100, "super-resolution").weight_decays
    assert 0 < low < high
    made = trial_specs("edsr", 100, 4, seed=0, task="super-resolution")
    assert made[0].recipe == default_recipe("edsr", 100, "super-resolution")
    assert len({one.recipe.learning_rate for one in made}) == 4
