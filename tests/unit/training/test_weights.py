"""Samples with weights are drawn in proportion to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training.batches import BatchSampler
from inn_automl.training.recipe import Recipe


def test_samples_are_drawn_as_often_as_they_weigh(signals: Dataset) -> None:
    weights = np.zeros(len(signals), np.float32)
    weights[signals.train[:2]] = 1, 3
    samples = Task.from_dataset(replace(signals, weights=weights)).split("train")
    recipe = Recipe(batch_size=40, augment=False)
    sampler = BatchSampler.from_recipe(samples, recipe)
    drawn = [one for pair in sampler.draw(0, 40, is_paired=True) for one in pair if one is not None]
    x = torch.cat([batch.x for batch in drawn])
    light, heavy = (samples.standardized(torch.tensor([i]))[0] for i in (0, 1))
    is_light = (x == light).all(dim=(1, 2))
    assert bool((is_light | (x == heavy).all(dim=(1, 2))).all())
    np.testing.assert_allclose(float(is_light.double().mean()), 0.25, atol=0.03)
    again = next(iter(sampler.draw(0, 1, is_paired=True)))[0]
    assert torch.equal(again.x, drawn[0].x)
