from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inn_automl.core.metric import PSNR
from inn_automl.data import Dataset
from inn_automl.tasks import SuperResolution, Task


def test_psnr_is_the_mean_over_images(pairs: Dataset) -> None:
    objective = Task.from_dataset(pairs).objective
    assert isinstance(objective, SuperResolution) and objective.metric == PSNR
    y = torch.full((2, 3, 8, 12), 100, dtype=torch.uint8)
    found = y.float() + torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1)
    score = objective.score(objective.scores(found, y).numpy())
    each = [20 * math.log10(255 / error) for error in (1, 10)]
    assert score.value == pytest.approx(sum(each) / 2)
    assert score.interval[0] < score.value < score.interval[1]


def test_bytes_are_clipped_and_equal_images_have_a_limit(pairs: Dataset) -> None:
    objective = Task.from_dataset(pairs).objective
    white = torch.full((1, 3, 8, 12), 255, dtype=torch.uint8)
    assert float(objective.scores(white.float() + 40, white)) == pytest.approx(100.0)


def test_outputs_are_standardized_like_the_inputs(pairs: Dataset) -> None:
    objective = Task.from_dataset(pairs).objective
    y = torch.from_numpy(pairs.y[pairs.train])
    torch.testing.assert_close(objective.raw(objective.targets(y)), y.float(), atol=1e-3, rtol=0)
    mean = pairs.mean.reshape(3, 1, 1)
    expected = (pairs.y[pairs.train] - mean) / pairs.std.reshape(3, 1, 1)
    np.testing.assert_allclose(objective.targets(y).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_bicubic_upscaling_is_worth_nothing(pairs: Dataset) -> None:
    objective = Task.from_dataset(pairs).objective
    small = torch.from_numpy(pairs.x[pairs.validation]).float()
    large = F.interpolate(small, scale_factor=2, mode="bicubic")
    score = objective.score(
        objective.scores(large, torch.from_numpy(pairs.y[pairs.validation])).numpy()
    )
    assert objective.baseline(pairs) == pytest.approx(score.value)


@pytest.mark.parametrize("shape", [(4, 6), (5, 5)])
def test_both_images_of_a_pair_are_varied_alike(pairs: Dataset, shape: tuple[int, int]) -> None:
    objective, generator = Task.from_dataset(pairs).objective, torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, *shape)
    targets = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    seen = set()
    for _ in range(40):
        small, large = objective.augment(x, targets, generator)
        assert torch.equal(small.repeat_interleave(2, 2).repeat_interleave(2, 3), large)
        seen.add(tuple(small.flatten().tolist()))
    assert len(seen) == (8 if shape[0] == shape[1] else 4)


def test_losses(pairs: Dataset) -> None:
    objective = Task.from_dataset(pairs).objective
    output, targets = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)
    assert float(objective.loss(output, targets)) == 2.0
    assert (
        float(
            objective.soft_loss(output, objective.soft_targets(output, targets, label_fraction=0.5))
        )
        == 1.0
    )
