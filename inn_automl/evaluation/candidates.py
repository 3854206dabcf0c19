"""Candidates of an integral network and their metric values: discretize, fit where it helps, score on
samples.

A candidate's weights are samples of the network's, or they are fitted to what its full width
computes (`integral.compensation`): whichever is better on the validation samples, by the task's
objective. Statistics of batch normalization belong to one width only, so each discretized network
gets its own from training samples (Yu and Huang, "Universally Slimmable Networks and Improved
Training Techniques", ICCV 2019, section 3.4).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from inn_automl.core.errors import InputError
from inn_automl.integral.batch_norm import recalibrate_batch_norm
from inn_automl.integral.conversion.reconstruction import (
    RECONSTRUCTION_RULES,
    ReconstructionRule,
    Reconstructor,
)
from inn_automl.tasks import Score, objective_of

if TYPE_CHECKING:
    from inn_automl.data import Dataset
    from inn_automl.integral import IntegralNetwork

SPLITS = ("train", "validation", "test")

NUM_RECALIBRATION = 2048
"""Training samples for normalization statistics: what US-Nets and Once-for-All use."""

NUM_RECONSTRUCTION = 512
"""Training samples that weights are fitted on; four times as many changed nothing beyond noise."""
MAX_RECONSTRUCTION_VALUES = 2**23
"""Input values that weights are fitted on at most, for all of them are in memory at once, with
what layers make of
them: 512 images of 64 x 64, 55 of 224 x 224."""

_PROBES = (0.0, 1 / 3, 2 / 3)
"""Widths, from the smallest to the full ones, at which it is seen what fits are good for."""

BATCH_VALUES = {"cpu": 2**16, "cuda": 2**21}
"""Input values per batch without gradients. On a CPU, activations (some 50 times the input) should
stay near its cache: a mobilenet took 1.4 ms a sample in batches of 128, 4.6 ms in batches of 668.
"""


@dataclass(frozen=True)
class Evaluation:
    """How good a candidate is on a split."""

    score: Score
    num_recalibration: int
    """Training samples that normalization statistics were re-estimated on; 0 if the network has
    none.
    """

    @property
    def metric_value(self) -> float:
        """In the task's metric."""
        return self.score.value


class StandardizedSamples:
    """Samples of a dataset as tensors on one device, standardized when they are read.

    Attributes:
        x: raw values (N, *input_shape), of the dataset's own type: a byte image stays four times
            smaller than float32.
        y: the dataset's targets: class indices (N,), say.
        objective: of the dataset's task.
    """

    def __init__(
        self, dataset: Dataset, indices: np.ndarray, device: str | torch.device = "cpu"
    ) -> None:
        self.x = torch.as_tensor(dataset.x[indices]).to(device)
        self.y = torch.as_tensor(dataset.y[indices]).to(device)
        self.objective = objective_of(dataset)
        shape = (-1, *[1] * (len(dataset.input_shape) - 1))
        self._mean = torch.as_tensor(dataset.mean, dtype=torch.float32).reshape(shape).to(device)
        self._scale = 1 / torch.as_tensor(dataset.std, dtype=torch.float32).reshape(shape).to(
            device
        )

    def __len__(self) -> int:
        return len(self.y)

    def standardized(self, indices: Tensor | slice) -> Tensor:
        """The samples at `indices`, float32 (n, *input_shape), zero mean and unit variance per
        channel.
        """
        return self.x[indices].to(torch.float32).sub(self._mean).mul_(self._scale)

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples in order, as pairs of standardized x and y.

        Batches are of equal size (give or take one sample), because normalization statistics weigh
        them equally.
        """
        limit = batch_size or max(
            32, BATCH_VALUES.get(self.x.device.type, 2**19) // self.x[0].numel()
        )
        for part in np.array_split(np.arange(len(self)), -(-len(self) // limit)):
            chosen = slice(int(part[0]), int(part[-1]) + 1)
            yield self.standardized(chosen), self.y[chosen]


def split_samples(
    dataset: Dataset, split: str, *, device: str | torch.device = "cpu"
) -> StandardizedSamples:
    """All samples of one split.

    Raises:
        InputError: there is no such split.
    """
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    return StandardizedSamples(dataset, getattr(dataset, split), device)


def recalibration_samples(
    dataset: Dataset,
    num_recalibration: int = NUM_RECALIBRATION,
    *,
    device: str | torch.device = "cpu",
) -> StandardizedSamples:
    """A fixed random subset of the training split: the same for all, so that candidates differ in
    widths only.
    """
    order = np.random.default_rng(0).permutation(dataset.train)
    return StandardizedSamples(dataset, order[:num_recalibration], device)


def use_channels_last(module: nn.Module, x: Tensor) -> None:
    """Puts the weights of an image network into channels-last layout, in which a CPU runs it in
    0.5 to 0.8 of the time.

    A module whose forward needs the usual layout (`view` may) keeps it.

    Args:
        x: (N, C, H, W) that `module` takes; with any other number of dimensions nothing happens.
    """
    if x.ndim != 4:
        return
    was_training = module.training
    module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            module(x)
    except RuntimeError:
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    finally:
        module.train(was_training)


def sample_candidate(
    network: IntegralNetwork, widths: Mapping[str, int], calibration: StandardizedSamples
) -> tuple[nn.Module, int]:
    """The network at sampled weights in eval mode, with normalization statistics of its own, and
    the samples that took.

    Its convolutions may be in channels-last layout. `CandidateBuilder` does this and better, in several
    times the time.
    """
    module = network.discretize(widths)
    return module, _recalibrate(module, calibration)


@dataclass(frozen=True)
class Candidate:
    """A plain module in eval mode, with normalization statistics of its own.

    Its convolutions may be in channels-last layout.
    """

    module: nn.Module
    is_reconstructed: bool
    """Whether its weights are fitted to what the full width computes, rather than samples."""
    score: Score
    """On the validation split."""
    num_recalibration: int
    """Training samples that normalization statistics were re-estimated on; 0 if the network has
    none.
    """


class CandidateBuilder:
    """The one way any candidate of a network is made.

    At the full width its weights are the network's; at others they are sampled, or fitted by one
    of `rules`: the first of these that is best on the validation samples.

    Attributes:
        network: as given.

    Args:
        network: on `device`; it must not change later.
        num_recalibration: training samples that normalization statistics are re-estimated on.
    """

    def __init__(
        self,
        network: IntegralNetwork,
        dataset: Dataset,
        *,
        num_recalibration: int = NUM_RECALIBRATION,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network
        self._calibration = recalibration_samples(dataset, num_recalibration, device=device)
        self._validation = split_samples(dataset, "validation", device=device)
        self._reconstructor = _reconstructor(network, self._calibration)

    def make(self, widths: Mapping[str, int]) -> Candidate:
        """The candidate at the widths.

        Raises:
            WidthsError: widths that the network does not allow.
        """
        best = self.recalibrate(self.network.discretize(widths), is_reconstructed=False)
        if dict(widths) != self.network.full_widths:
            for rule in self.rules:
                found = self._fitted(widths, rule)
                if found.score.value > best.score.value:
                    best = found
        return best

    def recalibrate(self, module: nn.Module, *, is_reconstructed: bool) -> Candidate:
        """The candidate that a plain module of the network's makes, with normalization statistics
        of its own.
        """
        num_samples = _recalibrate(module, self._calibration)
        return Candidate(
            module, is_reconstructed, evaluate_module(module, self._validation), num_samples
        )

    @functools.cached_property
    def rules(self) -> tuple[ReconstructionRule, ...]:
        """Those of `RECONSTRUCTION_RULES` that are tried at every width: better than samples at the
        mean of a few.

        A network that was trained at reduced widths computes well with samples, and each rule that
        is tried costs as much as the samples do.
        """
        if self._reconstructor is None:
            return ()
        least = self.network.min_ratio
        probes = [self.network.uniform_widths(least + (1 - least) * share) for share in _PROBES]
        sampled = sum(
            self.recalibrate(self.network.discretize(one), is_reconstructed=False).score.value
            for one in probes
        )
        return tuple(
            rule
            for rule in RECONSTRUCTION_RULES
            if sum(self._fitted(one, rule).score.value for one in probes) > sampled
        )

    def _fitted(self, widths: Mapping[str, int], rule: ReconstructionRule) -> Candidate:
        assert self._reconstructor is not None
        return self.recalibrate(self._reconstructor.discretize(widths, rule), is_reconstructed=True)


def reconstruction_samples(calibration: StandardizedSamples) -> Tensor:
    """Those that weights are fitted on and channels are ordered by, standardized: as many as
    memory is meant for.
    """
    num = max(1, min(NUM_RECONSTRUCTION, MAX_RECONSTRUCTION_VALUES // calibration.x[0].numel()))
    return calibration.standardized(slice(0, num))


def _reconstructor(
    network: IntegralNetwork, calibration: StandardizedSamples
) -> Reconstructor | None:
    try:
        return Reconstructor.from_samples(network, reconstruction_samples(calibration))
    except InputError:  # too few samples, or all alike: nothing can be fitted
        return None


def _recalibrate(module: nn.Module, calibration: StandardizedSamples) -> int:
    """Gives a discretized module statistics of its own and puts it into eval mode; returns the
    samples that took.
    """
    use_channels_last(module, calibration.standardized(slice(0, 2)))
    num_samples = recalibrate_batch_norm(module, (x for x, _ in calibration.batches()))
    module.eval()
    return num_samples


def evaluate_module(module: nn.Module, samples: StandardizedSamples) -> Score:
    """How good `module` (in eval mode) is on the samples."""
    objective = samples.objective
    with torch.inference_mode():
        found = [
            objective.scores(objective.raw(module(x).float()), y).cpu().numpy()
            for x, y in samples.batches()
        ]
    return objective.score(np.concatenate(found))


def count_correct(module: nn.Module, samples: StandardizedSamples) -> int:
    """How many of the samples `module` (in eval mode) classifies correctly."""
    return round(evaluate_module(module, samples).value * len(samples))


def evaluate_widths(
    network: IntegralNetwork,
    widths: Mapping[str, int],
    dataset: Dataset,
    *,
    split: str = "validation",
    num_recalibration: int = NUM_RECALIBRATION,
    device: str | torch.device = "cpu",
) -> Evaluation:
    """Metric value at `widths` on a split, with normalization statistics re-estimated on training
    samples.

    Args:
        network: on `device`.

    Raises:
        WidthsError: widths that the network does not allow.
        InputError: there is no such split.
    """
    samples = split_samples(dataset, split, device=device)
    module, num_used = sample_candidate(
        network, widths, recalibration_samples(dataset, num_recalibration, device=device)
    )
    return Evaluation(evaluate_module(module, samples), num_used)
