"""Batches of the training split, two for each step: one for the full width, one for the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inn_automl.training.distributed import local_slice
from inn_automl.training.loader import BatchLoader, Wanted
from inn_automl.training.recipe import Recipe
from inn_automl.training.transforms import MIXES, SampleTransform, mix

if TYPE_CHECKING:
    from inn_automl.tasks import StandardizedSamples


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a batch that this process learns from."""

    x: Tensor
    """Standardized and augmented inputs (n, *input_shape)."""
    y: Tensor
    """Targets as the objective takes them; class probabilities where samples are mixed."""
    fraction: float
    """Fraction of the whole batch that these samples are: 1 for a single process."""


@dataclass(frozen=True, eq=False)
class BatchSampler:
    """Draws the batches of an epoch from the training split.

    Attributes:
        samples: the training split.
        batch_size: samples in a batch, at most all of them.
        steps_per_epoch: batches in an epoch.
        is_augmented: whether samples are varied at random.
        mixes: transforms that mix two samples.
        num_outputs: classes, for mixing.
        loader: reads and varies the samples; None where they are in memory and vary by the batch.
    """

    samples: StandardizedSamples
    batch_size: int
    steps_per_epoch: int
    is_augmented: bool
    mixes: tuple[str, ...] = ()
    num_outputs: int = 0
    loader: BatchLoader | None = None

    @classmethod
    def from_recipe(
        cls, samples: StandardizedSamples, recipe: Recipe, num_outputs: int = 0
    ) -> BatchSampler:
        """The sampler of a recipe's batches.

        Args:
            samples: the training split.
            num_outputs: classes.
        """
        batch_size = min(recipe.batch_size, len(samples))
        num_samples = recipe.epoch_samples or len(samples)
        names = recipe.transforms if recipe.augment else ()
        mixes = tuple(name for name in names if name in MIXES)
        loader = None
        if names or not samples.is_in_memory:
            loader = BatchLoader(samples, sample_transform(samples, names))
        return cls(
            samples,
            batch_size,
            max(1, num_samples // batch_size),
            recipe.augment and not names,
            mixes,
            num_outputs,
            loader,
        )

    def draw(
        self, seed: int, num_steps: int, *, is_paired: bool
    ) -> Iterator[tuple[Batch, Batch | None]]:
        """Draws a batch for the full width and, if `is_paired`, another for reduced widths.

        The two follow different orders, so that in a step reduced widths learn from other samples
        than the full width does. After `steps_per_epoch` steps the orders start again.

        Args:
            seed: of orders and augmentation.
            num_steps: pairs to draw.
        """
        generator = torch.Generator().manual_seed(seed)
        orders = [self._order(generator) for _ in range(2)][: 1 + is_paired]
        wanted = [
            self._wanted(order, seed, step, which)
            for step in range(num_steps)
            for which, order in enumerate(orders)
        ]
        raw = iter(()) if self.loader is None else self.loader.load(wanted)
        drawn = (self._batch(one, raw, generator) for one in wanted)
        for _ in range(num_steps):
            full = next(drawn)
            yield full, next(drawn) if is_paired else None

    def close(self) -> None:
        """Ends the processes that read ahead."""
        if self.loader is not None:
            self.loader.close()

    @property
    def _is_read_whole(self) -> bool:
        """Whether each of the processes that train together needs the whole batch: to draw the
        variants that one process would, or to mix its samples.
        """
        return self.loader is None or self.is_augmented or bool(self.mixes)

    def _order(self, generator: torch.Generator) -> Tensor:
        """Positions of an epoch's samples: whole passes over the split, each in an order of its
        own; drawn in proportion to the samples' weights, where they have some.
        """
        if self.samples.weights is not None:
            count = self.steps_per_epoch * self.batch_size
            return torch.multinomial(self.samples.weights, count, True, generator=generator)
        num_passes = -(-self.steps_per_epoch * self.batch_size // len(self.samples))
        return torch.cat(
            [torch.randperm(len(self.samples), generator=generator) for _ in range(num_passes)]
        )

    def _wanted(self, order: Tensor, seed: int, step: int, which: int) -> Wanted:
        start = (step % self.steps_per_epoch) * self.batch_size
        chosen = order[start : start + self.batch_size].numpy()
        # Positions go on where orders start again, so that samples get other variants.
        first = (2 * step + which) * self.batch_size
        if self._is_read_whole:
            return Wanted(chosen, seed, first)
        local = local_slice(len(chosen))
        return Wanted(chosen[local], seed, first + local.start)

    def _batch(self, wanted: Wanted, raw: Iterator[Tensor], generator: torch.Generator) -> Batch:
        samples, objective = self.samples, self.samples.objective
        chosen = torch.from_numpy(wanted.indices).to(samples.device)
        x = samples.standardized(chosen) if self.loader is None else samples.standardize(next(raw))
        y = objective.targets(samples.y[chosen])
        if self.is_augmented:
            x, y = objective.augment(x, y, generator)
        if self.mixes:
            x, y = mix(x, y, self.mixes, self.num_outputs, wanted.seed + wanted.first)
        if not self._is_read_whole:
            return Batch(x, y, len(y) / self.batch_size)
        local = local_slice(len(chosen))
        return Batch(x[local], y[local], len(y[local]) / len(chosen))


def sample_transform(samples: StandardizedSamples, names: Sequence[str]) -> SampleTransform | None:
    """What brings stored samples to the size that a network takes; None where they have it."""
    if len(samples.input_shape) != 3:
        return None
    height, width = samples.input_shape[1:]
    single = tuple(name for name in names if name not in MIXES)
    return SampleTransform(single, (height, width), tuple(samples.mean.flatten().tolist()))
