"""Batches of the training split, two for each step: one for the full width, one for the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inn_automl.training.distributed import local_slice
from inn_automl.training.recipe import Recipe

if TYPE_CHECKING:
    from inn_automl.tasks import StandardizedSamples


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a batch that this process learns from."""

    x: Tensor
    """Standardized and augmented inputs (n, *input_shape)."""
    y: Tensor
    """Targets as the objective takes them."""
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
    """

    samples: StandardizedSamples
    batch_size: int
    steps_per_epoch: int
    is_augmented: bool

    @classmethod
    def from_recipe(cls, samples: StandardizedSamples, recipe: Recipe) -> BatchSampler:
        """The sampler of a recipe's batches.

        Args:
            samples: the training split.
        """
        batch_size = min(recipe.batch_size, len(samples))
        num_samples = min(recipe.epoch_samples or len(samples), len(samples))
        return cls(samples, batch_size, max(1, num_samples // batch_size), recipe.augment)

    def draw(
        self, generator: torch.Generator, num_steps: int, *, is_paired: bool
    ) -> Iterator[tuple[Batch, Batch | None]]:
        """Draws a batch for the full width and, if `is_paired`, another for reduced widths.

        The two follow different orders, so that in a step reduced widths learn from other samples
        than the full width does. After `steps_per_epoch` steps the orders start again.

        Args:
            generator: of orders and augmentation; on the CPU.
            num_steps: pairs to draw.
        """
        orders = [torch.randperm(len(self.samples), generator=generator) for _ in range(2)]
        device = self.samples.device
        for step in range(num_steps):
            start = (step % self.steps_per_epoch) * self.batch_size
            full, narrow = (order[start : start + self.batch_size].to(device) for order in orders)
            yield (
                self._batch(full, generator),
                self._batch(narrow, generator) if is_paired else None,
            )

    def _batch(self, chosen: Tensor, generator: torch.Generator) -> Batch:
        objective = self.samples.objective
        x, y = self.samples.standardized(chosen), objective.targets(self.samples.y[chosen])
        if self.is_augmented:
            x, y = objective.augment(x, y, generator)
        local = local_slice(len(chosen))
        return Batch(x[local], y[local], len(y[local]) / len(chosen))
