"""Tuning a discretized model before its export: a few of its parameters, for a stated time; all others stay as they are.

What is tuned is the model's partition (where each coupled group is sampled, and with which quadrature weights) and what
is affine in it: scales and shifts of normalization, and biases. The model's own channels are the nodes, so that a model
that was fitted to data can be tuned as one that was sampled can, tuning begins at the very model, and its shapes, and
with them its size and latency, stay. INN paper, section 4.2.

Targets are the full width's outputs mixed with the labels, as in the sandwich rule. Normalization statistics are those
of the batch while tuning and are re-estimated afterwards. Which model is kept, the validation samples decide.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from inn_automl.errors import InputError
from inn_automl.integral import IntegralNetwork, Partition, Trainable, Widths
from inn_automl.search.evaluation import Candidate, Candidates, Samples, use_channels_last
from inn_automl.storage import read_json, write_atomically, write_json
from inn_automl.training.augment import augment
from inn_automl.training.trial import Trained

if TYPE_CHECKING:
    from inn_automl.data import Dataset

PARTS = ("partition", "affine")
MOST_SECONDS = 3600.0

BATCH_SIZE = 64
LEARNING_RATES = {"partition": 3e-3, "affine": 3e-3}
LABEL_SHARE = 0.3
"""Share of the labels in the targets, as in training."""

_FIRST_STEPS, _TIMED_STEPS = 3, 10
_SPARE_SHARE = 0.1
"""Of the time, kept back: a short measurement cannot know what else the machine will do."""


@dataclass(frozen=True)
class Outcome:
    """What tuning brought, in shares of the validation samples that are classified correctly."""

    accuracy_before: float
    accuracy_after: float
    steps: int
    seconds: float
    """Of tuning and of judging what came of it; making the model that it began with is not counted."""

    @property
    def is_better(self) -> bool:
        """Whether the tuned model is kept."""
        return self.accuracy_after > self.accuracy_before


@dataclass(frozen=True)
class Tuned:
    """A model that was tuned, or the one that it began with where that is no worse on the validation samples."""

    candidate: Candidate
    outcome: Outcome


def tune(
    candidates: Candidates,
    widths: Widths,
    dataset: Dataset,
    *,
    seconds: float,
    seed: int,
    steps: int | None = None,
    parts: Collection[str] = PARTS,
) -> Tuned:
    """Tunes the candidate at the widths.

    Args:
        candidates: of the network; they run on its device.
        dataset: that of the candidates.
        seconds: what tuning may take, re-estimated statistics and validation included.
        seed: of order and augmentation; on the CPU the same seed, steps and thread count give the same bits.
        steps: how many steps to take, however long they take; None for as many as fit into `seconds`.
        parts: of `PARTS`, what is tuned.

    Raises:
        InputError: `seconds` is not above 0 and at most 3600, `steps` is below 1, or there is no such part.
        WidthsError: widths that the network does not allow.
    """
    check_seconds(seconds)
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise InputError(f"parts = {tuple(parts)} cannot be tuned: give one or more of {', '.join(PARTS)}.")
    if steps is not None and steps < 1:
        raise InputError(f"steps = {steps} of tuning were asked for: give 1 or more.")
    network = candidates.network
    widths = network.check_widths(widths)
    before = candidates.make(widths)
    full = candidates.make(network.full_widths).module
    started_at = time.monotonic()
    began = tunable(network, before.module, widths, parts)
    device = next(network.parameters()).device
    run = _Run(began, full, Samples(dataset, dataset.train, device), seed)
    judged_at = time.monotonic()
    candidates.settle(began.plain(), is_fitted=before.is_fitted)
    judging_s = time.monotonic() - judged_at
    num_steps = run.fitting_steps(seconds - judging_s, started_at) if steps is None else steps
    end_s = math.inf if steps is not None else started_at + seconds - judging_s
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        taken = run.steps(num_steps, end_s)
    after = candidates.settle(began.plain(), is_fitted=before.is_fitted)
    num = len(dataset.validation)
    outcome = Outcome(before.num_correct / num, after.num_correct / num, taken, time.monotonic() - started_at)
    return Tuned(after if outcome.is_better else before, outcome)


def check_seconds(seconds: float) -> None:
    """
    Raises:
        InputError: it is no time that tuning can take.
    """
    if not 0 < seconds <= MOST_SECONDS:  # a NaN is not
        raise InputError(f"tuning for {seconds!r} s was asked for: give more than 0, at most {MOST_SECONDS:g} s.")


@dataclass(frozen=True)
class Tunable:
    """A candidate as an integral network of its own, whose nodes are the candidate's channels."""

    network: IntegralNetwork
    """Computes what the candidate does, until its parameters are changed."""
    parameters: dict[str, list[Tensor]]
    """What is tuned, by part; nothing else has gradients."""

    def plain(self) -> nn.Module:
        """The module as it is now, with tensors of its own."""
        return self.network.discretize(self.network.full_widths).requires_grad_(True)


def tunable(network: IntegralNetwork, module: nn.Module, widths: Widths, parts: Collection[str]) -> Tunable:
    """A candidate with its parts to be tuned. A group of one channel has no partition to tune.

    Args:
        network: that the candidate was made from.
        module: the candidate; copied.
        widths: of the candidate.
    """
    partitions: dict[str, Partition] = {}
    for group in network.groups:
        num_points = widths[group.name] // group.unit
        if "partition" in parts and num_points > 1:
            partitions[group.name] = Trainable(num_points, has_factors=True)
    coupling = network.coupling.at(widths)
    own = IntegralNetwork(module, torch.empty(0), coupling=coupling, partition=partitions, min_ratio=1.0)
    own.requires_grad_(False)
    parameters = {
        "partition": list(own.trainable_partitions.parameters()),
        "affine": _affine(own.module) if "affine" in parts else [],
    }
    for parameter in (parameter for part in parameters.values() for parameter in part):
        parameter.requires_grad_(True)
    return Tunable(own, parameters)


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


class _Run:
    """The steps of one tuning."""

    def __init__(self, began: Tunable, full: nn.Module, samples: Samples, seed: int) -> None:
        self._began, self._full, self._samples, self._seed = began, full, samples, seed
        use_channels_last(began.network, samples.standardized(slice(0, 2)))
        self._batch_size = min(BATCH_SIZE, len(samples))

    def fitting_steps(self, seconds: float, started_at: float) -> int:
        """Steps that fit into the time from `started_at` on, by a few real ones; the model is left as it was."""
        network = self._began.network
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            self.steps(_FIRST_STEPS, math.inf)  # the very first ones also load and compile kernels
            timed_at = time.monotonic()
            self.steps(_TIMED_STEPS, math.inf)
        step_s = (time.monotonic() - timed_at) / _TIMED_STEPS
        network.load_state_dict(before)
        left_s = (1 - _SPARE_SHARE) * (seconds - (time.monotonic() - started_at))
        return max(1, int(left_s / step_s))

    def steps(self, num_steps: int, end_s: float) -> int:
        """Takes steps under a cosine schedule until `time.monotonic()` is `end_s`; how many were taken."""
        network = self._began.network
        groups = [
            {"params": parameters, "lr": LEARNING_RATES[part], "highest": LEARNING_RATES[part]}
            for part, parameters in self._began.parameters.items()
            if parameters
        ]
        optimizer = torch.optim.Adam(groups)
        generator = torch.Generator().manual_seed(self._seed)
        torch.manual_seed(self._seed)  # for dropout and the like
        order = torch.empty(0, dtype=torch.long)
        network.train()
        for step in range(num_steps):
            if time.monotonic() >= end_s:
                return step
            if len(order) < self._batch_size:
                order = torch.randperm(len(self._samples), generator=generator)
            chosen, order = order[: self._batch_size], order[self._batch_size :]
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * 0.5 * (1 + math.cos(math.pi * step / num_steps))
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(chosen.to(self._samples.x.device), generator)
            loss.backward()
            optimizer.step()
        return num_steps

    def _loss(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        x, y = augment(self._samples.standardized(chosen), generator), self._samples.y[chosen]
        with torch.no_grad():
            wanted = self._full(x)
        return _distance(self._began.network(x), wanted, y)


def _distance(out: Tensor, wanted: Tensor, y: Tensor) -> Tensor:
    """How far a model's logits (N, classes) are from the full width's and from the labels (N,)."""
    soft = wanted.softmax(1)
    labels = F.one_hot(y, soft.shape[1]).to(soft.dtype)
    return F.cross_entropy(out, torch.lerp(soft, labels, LABEL_SHARE))


@dataclass(frozen=True)
class TuningTask:
    """One model of a job that is to be tuned."""

    widths: dict[str, int]
    path: Path
    """Without an ending: the outcome is kept in .json, the weights of a model that became better in .safetensors."""
    seconds: float
    seed: int

    @property
    def is_done(self) -> bool:
        return self._outcome.exists()

    @property
    def weights(self) -> Path:
        return self.path.with_name(f"{self.path.name}.safetensors")

    @property
    def _outcome(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def read(self) -> Outcome:
        return Outcome(**read_json(self._outcome))

    def write(self, tuned: Tuned) -> None:
        """Keeps what came of it, the outcome last."""
        if tuned.outcome.is_better:
            module = tuned.candidate.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
            write_atomically(self.weights, save(tensors))
        write_json(self._outcome, asdict(tuned.outcome))


class Tuner:
    """Tunes models of one network; what is shared between them is made once, when it is needed."""

    def __init__(self, trained: Trained, dataset: Dataset, *, device: str = "cpu") -> None:
        self._trained, self._dataset, self._device = trained, dataset, device
        self._candidates: Candidates | None = None

    def __call__(self, task: TuningTask) -> Outcome:
        """What came of a task, now or earlier.

        Raises:
            WidthsError: widths that the network does not allow.
            StorageError: the outcome cannot be written, or read.
        """
        if not task.is_done:
            if self._candidates is None:
                network = self._trained.network().to(self._device)
                self._candidates = Candidates(network, self._dataset, device=self._device)
            task.write(tune(self._candidates, task.widths, self._dataset, seconds=task.seconds, seed=task.seed))
        return task.read()


def load_tuned(trained: Trained, task: TuningTask) -> nn.Module:
    """The plain module in eval mode that a task's outcome calls better."""
    module = trained.network().discretize(task.widths)
    module.load_state_dict(load_file(task.weights))
    return module.eval()
