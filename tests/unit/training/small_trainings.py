"""Trainings of seconds: their recipes, networks, and what tests compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import pytest
import torch

from inn_automl.data import Dataset
from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.training import run
from inn_automl.training.recipe import Recipe

TINY = Recipe(epochs=4, batch_size=16, learning_rate=0.05)
"""The full width learns alone in epochs 1 and 2."""
SANDWICH = dataclasses.replace(TINY, warmup_fraction=0.0)


def make(dataset: Dataset, family: str, seed: int = 0, width: float = 0.25) -> IntegralNetwork:
    torch.manual_seed(seed)
    depth = {"signal": 2, "convnet": 2, "mlp": 1}[family]
    module = build(family, dataset.input_shape, dataset.num_classes, width=width, depth=depth)
    return IntegralNetwork(module, torch.zeros(2, *dataset.input_shape))


def state_of(network: IntegralNetwork) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


class Clock:
    """Stands still but for `step_s` per reading, so that deadlines fall where a test wants them."""

    def __init__(self, step_s: float) -> None:
        self.now = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: float) -> list[dict[str, torch.Tensor]]:
    """Gives epochs these scores; returns the states that got them."""
    remaining, states = iter(scores), []

    def validate(self: run.TrainingRun, names: Collection[str] | None = None) -> dict[str, float]:
        states.append(state_of(self.network))
        return dict.fromkeys(names or self.validated_widths, next(remaining))

    monkeypatch.setattr(run.TrainingRun, "validate", validate)
    return states
