"""Tuning a discretized model before its export, at its own widths alone, for a stated time; its
shapes stay.

What can be tuned is the model's partition (where each coupled group is sampled, and with which
quadrature weights; INN paper, section 4.2), what is affine in it (scales and shifts of
normalization, and biases), and its weights. The model's own channels are the nodes, so that a
model that was fitted to data can be tuned as one that was sampled can, tuning begins at the very
model, and its shapes, and with them its size and latency, stay.

Targets are the full width's outputs mixed with the dataset's targets, as in the sandwich rule;
what losses are, the task's objective says. Normalization statistics are those of the batch while
tuning and are re-estimated afterwards. Which model is kept, the loss on the validation samples
decides: a number of errors cannot. What tuning gains is less than its noise on a few hundred
samples, and models that were chosen by it, out of many, look better in it than they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from inn_automl.core.errors import InputError
from inn_automl.core.result import FineTuning
from inn_automl.evaluation.candidates import (
    BuiltCandidate,
    CandidateBuilder,
    use_channels_last,
)
from inn_automl.integral import IntegralNetwork, Partition, Trainable, Widths

if TYPE_CHECKING:
    from inn_automl.tasks import StandardizedSamples, Task

PARTS = ("partition", "affine", "weights")
DEFAULT_PARTS = ("affine", "weights")
"""The parts that gain most. What another partition would make of a model's weights, tuned weights
can be.
"""
MAX_SECONDS = 3600.0

BATCH_SIZE = 64
LEARNING_RATE = 3e-3
"""Of Adam: about how far what is tuned moves in a step; and a point, in distances of the points."""
LABEL_FRACTION = 0.3
"""Share of the dataset's targets in those of tuning, as in training."""

NUM_BATCHES = 1_024
"""Different batches, at most: weights learn the few of them by heart."""
TIMED_STEPS = 8
SPARE_FRACTION = 0.1
"""Of the time, kept back: a short measurement cannot know what else the machine will do."""


@dataclass(frozen=True)
class FineTuningOutcome:
    """What tuning brought: the metric value on the validation samples, in the task's metric, and mean
    losses on them.
    """

    metric_value_before: float
    metric_value_after: float
    loss_before: float
    loss_after: float
    steps: int
    seconds: float
    """Of tuning and of judging what came of it; making the model that it began with is not
    counted.
    """

    @property
    def is_kept(self) -> bool:
        """Whether the tuned model takes the place of the one that it was made from."""
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
    """A model that was tuned, or the one that it was made from where that has no higher loss on
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
) -> FineTuned:
    """Tunes the candidate at the widths.

    Args:
        candidates: of the network; they run on its device.
        task: of the candidates.
        seconds: what tuning may take, re-estimated statistics and validation included.
        seed: of order and augmentation; on the CPU the same seed, steps and thread count give the
            same bits.
        steps: how many steps to take, however long they take; None for as many as fit into
            `seconds`.
        parts: of `PARTS`, what is tuned.

    Raises:
        InputError: `seconds` is not above 0 and at most 3600, `steps` is below 1, there is no such
            part, or nothing to fine-tune in it.
        WidthsError: widths that the network does not allow.
    """
    check_seconds(seconds)
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise InputError(
            f"parts = {tuple(parts)} cannot be tuned: give one or more of {', '.join(PARTS)}."
        )
    if steps is not None and steps < 1:
        raise InputError(f"steps = {steps} of tuning were asked for: give 1 or more.")
    network = candidates.network
    widths = network.check_widths(widths)
    before = candidates.build(widths)
    full = candidates.build(network.full_widths).module
    started_at = time.monotonic()
    began = make_tunable(network, before.module, widths, parts)
    device = next(network.parameters()).device
    run = _FineTuningRun(began, full, task.train, seed)
    validation = task.validation
    judged_at = time.monotonic()
    _loss(
        candidates.recalibrate(began.discretize(), is_reconstructed=before.is_reconstructed).module,
        validation,
    )
    judging_s = 2 * (time.monotonic() - judged_at)  # the loss of both models
    end_s = started_at + seconds - judging_s
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        taken = (
            run.steps(run.fitting_steps(end_s), end_s)
            if steps is None
            else run.steps(steps, math.inf)
        )
    after = candidates.recalibrate(began.discretize(), is_reconstructed=before.is_reconstructed)
    outcome = FineTuningOutcome(
        before.score.value,
        after.score.value,
        _loss(before.module, validation),
        _loss(after.module, validation),
        taken,
        time.monotonic() - started_at,
    )
    return FineTuned(after if outcome.is_kept else before, outcome)


def check_seconds(seconds: float) -> None:
    """
    Raises:
        InputError: it is no time that tuning can take.
    """
    if not 0 < seconds <= MAX_SECONDS:  # a NaN is not
        raise InputError(
            f"tuning for {seconds!r} s was asked for: give more than 0, at most {MAX_SECONDS:g} s."
        )


@dataclass(frozen=True)
class TunableCandidate:
    """A candidate as an integral network of its own, whose nodes are the candidate's channels."""

    network: IntegralNetwork
    """Computes what the candidate does, until its parameters are changed."""
    parameters: dict[str, list[Tensor]]
    """What is tuned, by part; nothing else has gradients."""

    def optimizer(self) -> torch.optim.Adam:
        """With the highest learning rate of each group of parameters as its `highest`."""
        deltas = {
            id(p.delta): p.delta
            for p in self.network.trainable_partitions
            if isinstance(p, Trainable)
        }
        others = [p for part in PARTS for p in self.parameters[part] if id(p) not in deltas]
        groups: list[dict[str, Any]] = (
            [{"params": others, "highest": LEARNING_RATE}] if others else []
        )
        for delta in deltas.values():
            # The last of n points moves by the sum of n distances, each of which is the square of
            # its delta.
            distance = float(delta.detach().mean()) / len(delta)
            groups.append({"params": [delta], "highest": LEARNING_RATE * distance})
        return torch.optim.Adam(groups)

    def discretize(self) -> nn.Module:
        """The module as it is now, with tensors of its own."""
        return self.network.discretize(self.network.full_widths).requires_grad_(True)


def make_tunable(
    network: IntegralNetwork, module: nn.Module, widths: Widths, parts: Collection[str]
) -> TunableCandidate:
    """A candidate with its parts to be tuned. A group of one channel has no partition to fine-tune.

    Args:
        network: that the candidate was made from.
        module: the candidate; copied.
        widths: of the candidate.

    Raises:
        InputError: there is nothing to fine-tune in it.
    """
    partitions: dict[str, Partition] = {}
    for group in network.groups:
        num_points = widths[group.name] // group.unit
        if "partition" in parts and num_points > 1:
            partitions[group.name] = Trainable(num_points, has_factors=True)
    coupling = network.coupling.discretized(widths)
    own = IntegralNetwork(
        module, torch.empty(0), coupling=coupling, partition=partitions, min_ratio=1.0
    )
    own.requires_grad_(False)
    affine = _affine(own.module)
    weights: list[Tensor] = [
        p for p in own.module.parameters() if all(p is not other for other in affine)
    ]
    parameters: dict[str, list[Tensor]] = {
        "partition": list(own.trainable_partitions.parameters()),
        "affine": affine if "affine" in parts else [],
        "weights": weights if "weights" in parts else [],
    }
    chosen = [parameter for part in parameters.values() for parameter in part]
    if not chosen:
        raise InputError(
            f"the model has no {' or '.join(parts)} to fine-tune: a partition of one point has none, "
            f"nor has a layer "
            "without bias and normalization an affine; fine-tune other parts, or wider models."
        )
    for parameter in chosen:
        parameter.requires_grad_(True)
    return TunableCandidate(own, parameters)


def _affine(module: nn.Module) -> list[Tensor]:
    """Scales and shifts of normalization layers, and the biases of all others."""
    found: dict[int, Tensor] = {}
    for layer in module.modules():
        is_norm = isinstance(layer, _NormBase | nn.LayerNorm | nn.GroupNorm)
        for name in ("weight", "bias") if is_norm else ("bias",):
            parameter = layer._parameters.get(name)
            if parameter is not None:
                found[id(parameter)] = parameter
    return list(found.values())


class _FineTuningRun:
    """The steps of one tuning, on batches that are gone through again and again.

    Order and augmentation of a batch come from (seed, its number): what the full width makes of
    it, which takes several times as long as a step of the model does, is computed once.
    """

    def __init__(
        self, began: TunableCandidate, full: nn.Module, samples: StandardizedSamples, seed: int
    ) -> None:
        self._began, self._full, self._samples, self._seed = began, full, samples, seed
        use_channels_last(began.network, samples.standardized(slice(0, 2)))
        size = min(BATCH_SIZE, len(samples))
        generator = torch.Generator().manual_seed(seed)
        num_epochs = -(-NUM_BATCHES * size // len(samples))
        order = torch.cat(
            [torch.randperm(len(samples), generator=generator) for _ in range(num_epochs)]
        )
        self._batches = order[: NUM_BATCHES * size].split(size)
        self._targets: dict[int, Tensor] = {}

    def fitting_steps(self, end_s: float) -> int:
        """Steps that fit until `time.monotonic()` is `end_s`, by a few real ones; the model is
        left as it was.
        """
        network = self._began.network
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
        """Takes steps under a cosine schedule until `time.monotonic()` is `end_s`; how many were
        taken.
        """
        network = self._began.network
        optimizer = self._began.optimizer()
        torch.manual_seed(self._seed)  # for dropout and the like
        network.train()
        for step in range(num_steps):
            if time.monotonic() >= end_s:
                return step
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * 0.5 * (1 + math.cos(math.pi * step / num_steps))
            optimizer.zero_grad(set_to_none=True)
            x, targets = self._batch(step % len(self._batches))
            self._samples.objective.soft_loss(network(x), targets).backward()
            optimizer.step()
        return num_steps

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Augmented samples, and what the full width makes of them mixed with their targets."""
        objective = self._samples.objective
        chosen = self._batches[number].to(self._samples.x.device)
        (seed,) = np.random.SeedSequence((self._seed, number)).generate_state(1).tolist()
        x, y = self._samples.standardized(chosen), objective.targets(self._samples.y[chosen])
        x, y = objective.augment(x, y, torch.Generator().manual_seed(seed))
        if number not in self._targets:
            with torch.no_grad():
                self._targets[number] = objective.soft_targets(
                    self._full(x), y, label_fraction=LABEL_FRACTION
                )
        return x, self._targets[number]


def _loss(module: nn.Module, samples: StandardizedSamples) -> float:
    """Mean loss of the samples' targets."""
    objective = samples.objective
    with torch.inference_mode():
        total = sum(
            len(y) * float(objective.loss(module(x), objective.targets(y)))
            for x, y in samples.batches()
        )
    return total / len(samples)
