"""Fine-tuning of a discretized model before its export: at its own widths alone, within a stated
time, with unchanged shapes.

Three parts of a model can be fine-tuned: its partition (the points at which each coupled group is
sampled, and their quadrature weights; INN paper, section 4.2), its affine parameters (scales and
shifts of normalization, and biases), and its weights. The model's own channels are the control
points. So a reconstructed model can be fine-tuned like a sampled one, fine-tuning starts from the
very model, and its shapes, and with them its size and latency, stay.

Distillation targets are the full width's outputs mixed with the dataset's targets, as in the
sandwich rule; the task's objective defines the losses. Batch norm uses the statistics of each
batch, and is recalibrated afterwards. The loss on the validation samples decides whether the
fine-tuned model is kept, not the metric value: the gain of fine-tuning is less than the metric's
noise on a few hundred samples, and models that were selected by the metric, out of many, look
better in it than they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from inn_automl.core.errors import InputError
from inn_automl.core.result import FineTuning
from inn_automl.evaluation.candidates import (
    BuiltCandidate,
    CandidateBuilder,
    use_channels_last,
)
from inn_automl.integral import Widths
from inn_automl.training.batches import sample_transform
from inn_automl.training.loader import Wanted, sample_seeds
from inn_automl.training.transforms import SampleTransform
from inn_automl.training.tunable import PARTS, TunableCandidate, make_tunable

if TYPE_CHECKING:
    from inn_automl.tasks import StandardizedSamples, Task

DEFAULT_PARTS = ("affine", "weights")
"""The parts that gain most. Fine-tuned weights can be all that another partition would make of
them.
"""
MAX_SECONDS = 3600.0

BATCH_SIZE = 64
LABEL_FRACTION = 0.3
"""Fraction of the dataset's targets in the distillation targets, as in training."""

NUM_BATCHES = 1_024
"""Different batches, at most, whose distillation targets are kept in memory. Fewer are learned by
heart.
"""
TIMED_STEPS = 8
SPARE_FRACTION = 0.1
"""Of the time, left unplanned: a short measurement cannot know what else the machine will do."""


@dataclass(frozen=True)
class FineTuningOutcome:
    """Metric values and mean losses on the validation samples, before and after fine-tuning."""

    metric_value_before: float
    metric_value_after: float
    loss_before: float
    loss_after: float
    steps: int
    seconds: float
    """Of fine-tuning and validation, without building the model that it starts from."""

    @property
    def is_kept(self) -> bool:
        """True if the fine-tuned model replaces the one that it was made from."""
        return self.steps > 0 and self.loss_after < self.loss_before  # a NaN is not

    def to_result(self, metric_value_before: float) -> FineTuning:
        """Makes the record that a result keeps of a fine-tuned model.

        Args:
            metric_value_before: without fine-tuning, in the precision that is published.
        """
        return FineTuning(
            metric_value_before=metric_value_before,
            loss_before=self.loss_before,
            loss_after=self.loss_after,
            steps=self.steps,
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model, or the one that it was made from where that has no higher loss on
    validation.
    """

    candidate: BuiltCandidate
    outcome: FineTuningOutcome


def fine_tune(
    candidates: CandidateBuilder,
    widths: Widths,
    task: Task,
    *,
    seconds: float,
    seed: int,
    steps: int | None = None,
    parts: Collection[str] = DEFAULT_PARTS,
    transforms: Sequence[str] = (),
) -> FineTuned:
    """Fine-tunes the candidate at the widths.

    Args:
        candidates: of the network; they run on its device.
        task: of the candidates.
        seconds: time limit, recalibration and validation included.
        seed: of order and augmentation; on the CPU the same seed, steps and thread count give the
            same bits.
        steps: number of steps, however long they take; None for as many as fit into `seconds`.
        parts: of `PARTS`, the parts that are fine-tuned.
        transforms: what varies images, as in training; those that mix samples are left out.

    Raises:
        InputError: `seconds` is not above 0 and at most 3600, `steps` is below 1, there is no such
            part, or nothing to fine-tune in it.
        WidthsError: widths that the network does not allow.
    """
    check_seconds(seconds)
    _check_arguments(steps, parts)
    network = candidates.network
    widths = network.check_widths(widths)
    before = candidates.build(widths)
    full = candidates.build(network.full_widths).module
    started_at = time.monotonic()
    tunable = make_tunable(network, before.module, widths, parts)
    run = _FineTuningRun.from_samples(tunable, full, task.train, seed, transforms)

    def tuned() -> BuiltCandidate:
        return candidates.recalibrate(
            tunable.discretize(), is_reconstructed=before.is_reconstructed
        )

    validated_at = time.monotonic()
    _loss(tuned().module, task.validation)
    validation_s = 2 * (time.monotonic() - validated_at)  # the loss of both models
    num_steps = run.take(steps, started_at + seconds - validation_s)
    after = tuned()
    outcome = FineTuningOutcome(
        before.score.value,
        after.score.value,
        _loss(before.module, task.validation),
        _loss(after.module, task.validation),
        num_steps,
        time.monotonic() - started_at,
    )
    return FineTuned(after if outcome.is_kept else before, outcome)


def check_seconds(seconds: float) -> None:
    """Checks a time for fine-tuning.

    Raises:
        InputError: it is out of range.
    """
    if not 0 < seconds <= MAX_SECONDS:  # a NaN is not
        raise InputError(
            f"fine-tuning for {seconds!r} s was requested: give more than 0, at most "
            f"{MAX_SECONDS:g} s."
        )


def _check_arguments(steps: int | None, parts: Collection[str]) -> None:
    if not parts or any(part not in PARTS for part in parts):
        raise InputError(
            f"parts = {tuple(parts)} cannot be fine-tuned: give one or more of {', '.join(PARTS)}."
        )
    if steps is not None and steps < 1:
        raise InputError(f"steps = {steps} of fine-tuning were requested: give 1 or more.")


@dataclass(frozen=True, eq=False)
class _FineTuningRun:
    """The steps of one fine-tuning, on batches that are repeated in turn.

    Order and augmentation of a batch come from (seed, its number). So the full width's outputs for
    it, which take several times as long as a step of the model does, are computed once.

    Attributes:
        tunable: the model.
        full: the full width, in eval mode.
        samples: the training split.
        batches: positions of the samples of each batch.
        transform: what varies images; None for what the objective finds safe.
        targets: distillation targets so far, by the number of the batch.
    """

    tunable: TunableCandidate
    full: nn.Module
    samples: StandardizedSamples
    seed: int
    batches: tuple[Tensor, ...]
    transform: SampleTransform | None = None
    targets: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def from_samples(
        cls,
        tunable: TunableCandidate,
        full: nn.Module,
        samples: StandardizedSamples,
        seed: int,
        transforms: Sequence[str] = (),
    ) -> _FineTuningRun:
        """A fine-tuning before its first step.

        Args:
            tunable: put into the memory layout that is fast on its device.
        """
        use_channels_last(tunable.network, samples.standardized(slice(0, 2)))
        size = min(BATCH_SIZE, len(samples))
        generator = torch.Generator().manual_seed(seed)
        num_epochs = -(-NUM_BATCHES * size // len(samples))
        order = torch.cat(
            [torch.randperm(len(samples), generator=generator) for _ in range(num_epochs)]
        )
        batches = order[: NUM_BATCHES * size].split(size)
        transform = sample_transform(samples, transforms) if transforms else None
        return cls(tunable, full, samples, seed, batches, transform)

    def take(self, num_steps: int | None, end_s: float) -> int:
        """Takes `num_steps` steps; None: as many as fit until `time.monotonic()` is `end_s`.

        Returns:
            The number of steps that were taken.
        """
        device = self.samples.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if num_steps is None:
                return self.steps(self.fitting_steps(end_s), end_s)
            return self.steps(num_steps, math.inf)

    def fitting_steps(self, end_s: float) -> int:
        """The number of steps that fit until `time.monotonic()` is `end_s`, estimated by a few real
        ones; the model is left as it was.
        """
        network = self.tunable.network
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.steps(1, math.inf)  # the very first one also loads and compiles
        seconds = []
        for _ in range(2):  # the second time without the full width
            started_at = time.monotonic()
            self.steps(TIMED_STEPS, math.inf)
            seconds.append((time.monotonic() - started_at) / TIMED_STEPS)
        network.load_state_dict(before)
        first_s, again_s = max(seconds), seconds[1]
        left_s = (1 - SPARE_FRACTION) * (end_s - time.monotonic())
        # n steps take n * again_s, and the first time of each batch first_s - again_s more.
        num_steps = left_s / first_s
        if num_steps > NUM_BATCHES:
            num_steps = (left_s - NUM_BATCHES * (first_s - again_s)) / again_s
        return max(1, int(num_steps))

    def steps(self, num_steps: int, end_s: float) -> int:
        """Takes steps under a cosine schedule until `time.monotonic()` is `end_s`.

        Returns:
            The number of steps that were taken.
        """
        network = self.tunable.network
        optimizer = self.tunable.optimizer()
        torch.manual_seed(self.seed)  # for dropout and the like
        network.train()
        for step in range(num_steps):
            if time.monotonic() >= end_s:
                return step
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * 0.5 * (1 + math.cos(math.pi * step / num_steps))
            optimizer.zero_grad(set_to_none=True)
            x, targets = self._batch(step % len(self.batches))
            self.samples.objective.soft_loss(network(x), targets).backward()
            optimizer.step()
        return num_steps

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Augmented samples of a batch, and their distillation targets."""
        objective = self.samples.objective
        chosen = self.batches[number].to(self.samples.device)
        (seed,) = np.random.SeedSequence((self.seed, number)).generate_state(1).tolist()
        y = objective.targets(self.samples.y[chosen])
        if self.transform is None:
            x = self.samples.standardized(chosen)
            x, y = objective.augment(x, y, torch.Generator().manual_seed(seed))
        else:
            wanted = Wanted(self.batches[number].numpy(), seed, 0)
            varied = self.transform(self.samples.raw(chosen).cpu(), sample_seeds(wanted))
            x = self.samples.standardize(varied.to(self.samples.device))
        if number not in self.targets:
            with torch.no_grad():
                self.targets[number] = objective.soft_targets(
                    self.full(x), y, label_fraction=LABEL_FRACTION
                )
        return x, self.targets[number]


def _loss(module: nn.Module, samples: StandardizedSamples) -> float:
    """Mean loss of the samples' targets."""
    objective = samples.objective
    with torch.inference_mode():
        total = sum(
            len(y) * float(objective.loss(module(x), objective.targets(y)))
            for x, y in samples.batches()
        )
    return total / len(samples)
