from __future__ import annotations

import pytest
import torch

from inn_automl.data.augmentation import augment, shift_images, shift_signals


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "shape", [(5, 2, 8, 8), (5, 1, 28, 20), (5, 3, 1, 1), (5, 2, 40), (5, 1, 1)]
)
def test_shape_is_kept_and_the_seed_decides(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=seeded())
    once = augment(x, seeded(1))
    assert once.shape == x.shape
    assert once.dtype == x.dtype
    assert torch.equal(once, augment(x, seeded(1)))
    if x[0].numel() > 3:
        assert not torch.equal(once, augment(x, seeded(2)))


def test_images_are_moved_and_their_border_repeated() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    x = image.repeat(200, 1, 1, 1)
    variants = {
        tuple(
            torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")[
                ..., dy : dy + 8, dx : dx + 8
            ]
            .flatten()
            .tolist()
        )
        for dy in range(3)
        for dx in range(3)
    }
    shifted = {tuple(one.flatten().tolist()) for one in shift_images(x, 1 / 8, seeded())}
    assert shifted == variants


def test_channels_of_one_sample_move_together() -> None:
    x = torch.randn(6, 1, 9, 9, generator=seeded()).repeat(1, 3, 1, 1)
    moved = shift_images(x, 0.3, seeded(1))
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_signals_are_moved_by_at_most_the_share() -> None:
    x = torch.arange(40.0).repeat(100, 2, 1)
    moved = shift_signals(x, 1 / 10, seeded())
    offsets = moved[:, :, 20] - 20
    assert torch.equal(offsets[:, 0], offsets[:, 1])
    assert set(offsets[:, 0].tolist()) == {float(o) for o in range(-4, 5)}
    assert moved.min() == 0
    assert moved.max() == 39


def test_signals_are_scaled_and_get_noise() -> None:
    x = torch.ones(400, 1, 100)
    level = augment(x, seeded()).mean(2)
    assert 0.88 < level.min() < 0.93
    assert 1.07 < level.max() < 1.12
    noise = (augment(x, seeded()) - level[..., None]).std()
    assert 0.045 < noise < 0.055
