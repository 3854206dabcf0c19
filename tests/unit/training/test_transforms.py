from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from inn_automl.core.errors import SpecError
from inn_automl.data import Dataset
from inn_automl.tasks import Task
from inn_automl.training import loader
from inn_automl.training.batches import Batch, BatchSampler
from inn_automl.training.recipe import Recipe
from inn_automl.training.transforms import SampleTransform, choose_transforms, mix
from tests.unit.tasks.test_standardized import OnDisk
from tests.unit.training.small_trainings import TINY


def photographs(num: int = 40, side: int = 64, channels: int = 3) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (num, channels, side, side), dtype=np.uint8)
    y = np.arange(num, dtype=np.int64) % 4
    splits = np.split(np.arange(num), [num // 2, 3 * num // 4])
    flat = x.transpose(1, 0, 2, 3).reshape(channels, -1).astype(np.float32)
    return Dataset(
        "photographs", x, y, tuple("abcd"), *splits, flat.mean(1), flat.std(1), "fingerprint"
    )


@pytest.mark.parametrize(
    ("choice", "side", "channels", "expected"),
    [
        ("auto", 28, 1, (True, ())),
        ("auto", 32, 3, (True, ())),
        ("auto", 128, 3, (True, ("resized_crop", "flip"))),
        ("auto", 128, 1, (True, ("resized_crop",))),
        ("none", 128, 3, (False, ())),
        ("light", 28, 1, (True, ())),
        ("light", 28, 3, (True, ("shift", "flip"))),
        ("strong", 28, 1, (True, ("shift", "trivial_augment", "erasing", "mixup", "cutmix"))),
        (("shift",), 128, 3, (True, ())),
        (("flip", "mixup"), 28, 1, (True, ("flip", "mixup"))),
    ],
)
def test_defaults_follow_size_and_colour(
    choice: Any, side: int, channels: int, expected: tuple[bool, tuple[str, ...]]
) -> None:
    assert choose_transforms(choice, photographs(8, side, channels)) == expected


def test_signals_and_numbers_keep_what_is_safe_for_them(
    signals: Dataset, numbers: Dataset, pairs: Dataset
) -> None:
    for dataset in (signals, numbers, pairs):
        assert choose_transforms("strong", dataset) == (True, ())
        with pytest.raises(SpecError, match="'mixup' does not fit"):
            choose_transforms(("mixup",), dataset)


def test_transforms_that_take_bytes_refuse_other_numbers() -> None:
    dataset = photographs(8)
    other = dataclasses.replace(dataset, x=dataset.x.astype(np.float32))
    with pytest.raises(SpecError, match="takes bytes of 1 or 3 channels, and these are float32"):
        choose_transforms(("trivial_augment",), other)


def test_seeds_decide_how_each_image_varies() -> None:
    images = torch.from_numpy(photographs(4).x)
    transform = SampleTransform(
        ("shift", "flip", "trivial_augment", "erasing"), (48, 56), (1.0, 2.0, 3.0)
    )
    state = torch.get_rng_state()
    once = transform(images, [1, 2, 3, 4])
    assert torch.equal(torch.get_rng_state(), state)
    assert (once.shape, once.dtype) == ((4, 3, 48, 56), torch.uint8)
    assert torch.equal(once[[2, 0]], transform(images[[2, 0]], [3, 1]))
    assert not torch.equal(once, transform(images, [5, 6, 7, 8]))


def test_without_transforms_the_centre_is_cut_out() -> None:
    images = torch.from_numpy(photographs(2).x)
    cut = SampleTransform((), (48, 56))(images, [0, 0])
    assert torch.equal(cut, images[:, :, 8:56, 4:60])


def test_shifts_are_of_an_eighth_or_of_what_is_stored_around() -> None:
    image = torch.arange(64, dtype=torch.uint8).expand(1, 1, 64, 64)
    for size, most in ((64, 8), (32, 16)):
        shifted = SampleTransform(("shift",), (size, size))(
            image.expand(400, -1, -1, -1), range(400)
        )
        middle = shifted[:, 0, 0, size // 2].tolist()
        assert (min(middle), max(middle)) == (32 - most, 32 + most)


def test_crops_keep_at_least_a_third_and_have_the_size_of_the_network() -> None:
    image = torch.arange(200, dtype=torch.uint8).expand(1, 1, 200, 200)
    crops = SampleTransform(("resized_crop",), (40, 40))(image.expand(100, -1, -1, -1), range(100))
    assert crops.shape == (100, 1, 40, 40)
    kept = (crops[:, 0, 0, -1].int() - crops[:, 0, 0, 0].int()) / 200
    assert kept.min() > 0.35**0.5 * 0.75**0.5 - 0.06  # of the widest narrow crop
    assert kept.max() > 0.9


def test_flips_mirror_half_of_the_images() -> None:
    image = torch.arange(8, dtype=torch.uint8).expand(1, 1, 8, 8)
    flipped = SampleTransform(("flip",), (8, 8))(image.expand(200, -1, -1, -1), range(200))
    first = flipped[:, 0, 0, 0]
    assert set(first.tolist()) == {0, 7}
    assert 70 < int((first == 7).sum()) < 130


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_targets_are_mixed_as_samples_are(name: str) -> None:
    targets = torch.arange(6) % 3
    x = targets[:, None, None, None].float().expand(6, 2, 12, 12).contiguous()
    shares = set()
    for seed in range(20):
        mixed, labels = mix(x, targets, [name], 3, seed)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
        # Every pixel is its class, so that the mean tells the share of each.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), labels @ torch.arange(3.0))
        shares.add(round(float(labels[1, 1]), 3))
    assert len(shares) > 10


def drawn(sampler: BatchSampler, seed: int = 3) -> list[Batch]:
    batches = [one for pair in sampler.draw(seed, 2, is_paired=True) for one in pair if one]
    sampler.close()
    return batches


@pytest.mark.parametrize("transforms", [(), ("resized_crop", "flip", "mixup")])
def test_workers_make_the_batches_that_one_process_makes(
    transforms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = photographs()
    recipe = dataclasses.replace(TINY, batch_size=5, transforms=transforms)
    samplers = []
    for num_workers, x in ((0, dataset.x), (2, OnDisk(dataset.x))):
        monkeypatch.setattr(loader, "num_loader_workers", lambda *_, n=num_workers: n)
        train = Task.from_dataset(dataclasses.replace(dataset, x=x)).train
        samplers.append(BatchSampler.from_recipe(train, recipe, 4))
        assert (samplers[-1].loader is None) == (num_workers == 0 and not transforms)
        batches = drawn(samplers[-1])
        assert [batch.x.shape for batch in batches] == [(5, 3, 64, 64)] * 4
        if num_workers == 0:
            expected = batches
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.x, other.x) and torch.equal(batch.y, other.y)
    again = drawn(samplers[0], seed=4)
    assert not torch.equal(again[0].x, expected[0].x)


def test_processes_that_train_together_take_the_parts_of_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = photographs()
    recipe = dataclasses.replace(TINY, batch_size=5, transforms=("resized_crop", "flip"))
    sampler = BatchSampler.from_recipe(Task.from_dataset(dataset).train, recipe, 4)
    whole, parts = drawn(sampler), []
    for part in (slice(0, 2), slice(2, 5)):
        monkeypatch.setattr("inn_automl.training.batches.local_slice", lambda num, part=part: part)
        parts.append(drawn(sampler))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.x, torch.cat([first.x, second.x]))
        assert torch.equal(batch.y, torch.cat([first.y, second.y]))
        assert (first.fraction, second.fraction) == (2 / 5, 3 / 5)


def test_workers_follow_processors_and_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = photographs()
    kept = Task.from_dataset(dataset).train
    on_disk = Task.from_dataset(dataclasses.replace(dataset, x=OnDisk(dataset.x))).train
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert loader.num_loader_workers(kept, 100) == 0
    assert loader.num_loader_workers(on_disk, 100) == 4
    assert loader.num_loader_workers(on_disk, 2**50) == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert loader.num_loader_workers(on_disk, 100) == 1


def test_recipes_with_transforms_are_read_back() -> None:
    recipe = dataclasses.replace(Recipe(), transforms=("flip", "erasing"))
    assert recipe.to_dict()["transforms"] == ["flip", "erasing"]
    assert Recipe.from_dict(recipe.to_dict()) == recipe
