"""Candidates of an integral network: discretize, reconstruct where it helps, score on samples.

A candidate's weights are sampled from the network, or reconstructed by least squares from the full
width's activations (`integral.conversion.reconstruction`), whichever has the better metric value on
the validation samples. Statistics of batch normalization belong to one width only, so each
discretized network gets its own from training samples (J. Yu and T. Huang, "Universally Slimmable
Networks and Improved Training Techniques", ICCV 2019, section 3.4).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inn_automl.core.errors import InputError
from inn_automl.core.sample_scores import SampleScores
from inn_automl.integral.batch_norm import recalibrate_batch_norm
from inn_automl.integral.conversion.reconstruction import (
    RECONSTRUCTION_RULES,
    ReconstructionRule,
    Reconstructor,
)
from inn_automl.tasks import Score, StandardizedSamples, Task
from inn_automl.tasks.task import NUM_RECALIBRATION
from inn_automl.width_search.comparison import is_surely_below

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork

NUM_RECONSTRUCTION = 512
"""Training samples that weights are reconstructed on; four times as many changed nothing beyond
noise.
"""
MAX_RECONSTRUCTION_VALUES = 2**23
"""Input values that weights are reconstructed on at most, for all of them are in memory at once,
with the activations of the layers: 512 images of 64 x 64, 55 of 224 x 224.
"""

MAX_RECONSTRUCTION_S, MAX_PROBING_S = 10.0, 60.0
"""Seconds that the reconstruction of one candidate, and finding out whether any helps, may take:
every candidate would cost as much, and a network of millions of parameters takes minutes."""

MIN_SHARE, NUM_SHARES = 64, 8
"""Samples, and parts of the split, of the first share of a race; each share is twice the last."""
SURE_DEVIATIONS = 3.0
"""Standard errors by which a candidate must be worse than its rival to be dropped early."""

_PROBES = (0.0, 1 / 3, 2 / 3)
"""Widths at which reconstruction is compared with sampled weights, from the smallest (0) towards
the full ones (1).
"""


def use_channels_last(module: nn.Module, x: Tensor) -> None:
    """Puts the weights of an image network into channels-last layout, in which a CPU runs it in
    0.5 to 0.8 of the time.

    A module whose forward needs the usual layout (`view` may) keeps it.

    Args:
        module: changed in place.
        x: (N, C, H, W) that `module` takes; with any other number of dimensions nothing happens.
    """
    if x.ndim != 4:
        return
    was_training = module.training
    module.eval().to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            module(x)
    except RuntimeError:
        module.to(memory_format=torch.contiguous_format)
    finally:
        module.train(was_training)


def recalibrate(module: nn.Module, samples: StandardizedSamples) -> int:
    """Gives a discretized module batch-norm statistics of its own, and puts it into eval mode.

    Args:
        module: changed in place; its convolutions may be in channels-last layout afterwards.
        samples: of the training split.

    Returns:
        The samples that statistics were computed on; 0 if the module has no batch normalization.
    """
    use_channels_last(module, samples.standardized(slice(0, 2)))
    num_samples = recalibrate_batch_norm(module, (x for x, _ in samples.batches()))
    module.eval()
    return num_samples


def sample_candidate(
    network: IntegralNetwork, widths: Mapping[str, int], samples: StandardizedSamples
) -> nn.Module:
    """Discretizes a network by sampling alone, and recalibrates batch norm.

    `CandidateBuilder` also tries reconstruction, which takes several times as long.

    Args:
        network: on the device of the samples.
        widths: channels of each coupled group.
        samples: of the training split, for batch-norm statistics.

    Returns:
        A module in eval mode. Its convolutions may be in channels-last layout.
    """
    module = network.discretize(widths)
    recalibrate(module, samples)
    return module


def evaluate_module(
    module: nn.Module, samples: StandardizedSamples, rival: SampleScores | None = None
) -> Score:
    """The metric value of a module on samples.

    Args:
        module: in eval mode, on the samples' device.
        rival: of another model on the same samples. If the module is surely worse on a first share
            of them, the rest is left out, and the score is an estimate.
    """
    objective = samples.objective
    found: list[NDArray[np.float64]] = []
    num, share = 0, max(MIN_SHARE, len(samples) // NUM_SHARES)
    with torch.inference_mode():
        for x, y in samples.batches():
            found.append(objective.scores(objective.raw(module(x).float()), y).cpu().numpy())
            num += len(y)
            if rival is not None and share <= num <= len(samples) // 2:
                score = objective.score(np.concatenate(found))
                if (lost := _lost(score, rival)) is not None:
                    return lost
                share *= 2
    return objective.score(np.concatenate(found))


def _lost(score: Score, rival: SampleScores) -> Score | None:
    """The estimated score of a model that is surely worse than its rival; None if it may not be.

    Args:
        score: on a first share of the samples.
        rival: on at least as many.
    """
    assert score.samples is not None
    own, num = score.samples.contributions, len(score.samples)
    other = rival.contributions[:num]
    if len(other) < num or not is_surely_below(own, other, deviations=SURE_DEVIATIONS):
        return None
    # Both meet the same samples: their difference says more than the value on the share.
    value = float(rival.contributions.mean()) + float((own - other).mean())
    return replace(score, value=value, is_partial=True)


def count_correct(module: nn.Module, samples: StandardizedSamples) -> int:
    """The number of samples that a classifier in eval mode puts into the right class."""
    return round(evaluate_module(module, samples).value * len(samples))


def evaluate_widths(
    network: IntegralNetwork,
    widths: Mapping[str, int],
    task: Task,
    *,
    split: str = "validation",
    num_recalibration: int = NUM_RECALIBRATION,
) -> Score:
    """The metric value of a network at widths, with sampled weights and recalibrated batch norm.

    Args:
        network: on the task's device.
        widths: channels of each coupled group.
        task: whose samples and metric are used.
        split: to evaluate on.
        num_recalibration: training samples that batch norm is recalibrated on.

    Raises:
        WidthsError: widths that the network does not allow.
        InputError: there is no such split.
    """
    samples = task.split(split)
    recalibration = task.recalibration_samples(num_recalibration)
    return evaluate_module(sample_candidate(network, widths, recalibration), samples)


@dataclass(frozen=True, eq=False)
class BuiltCandidate:
    """A candidate as a plain module in eval mode, with batch-norm statistics of its own.

    Its convolutions may be in channels-last layout.
    """

    module: nn.Module
    is_reconstructed: bool
    """True if its weights are reconstructed from the full width's activations, not sampled."""
    score: Score
    """On the validation split."""
    num_recalibration: int
    """Training samples that batch norm was recalibrated on; 0 if the network has none."""


@dataclass(frozen=True, eq=False)
class CandidateBuilder:
    """Builds candidates of one network; all that a job searches, measures and publishes come from
    here.

    At the full width the weights are the network's own; at others they are sampled, or
    reconstructed by the first of `rules` that is best on the validation samples.

    Attributes:
        network: on the task's device; it must not change later.
        recalibration: training samples for batch-norm statistics.
        validation: samples that candidates are scored on.
        reconstructor: reconstructs weights; None where there are too few samples to do so.
        chosen_rules: the `rules` that an earlier builder of the network found; None: not known.
    """

    network: IntegralNetwork
    recalibration: StandardizedSamples
    validation: StandardizedSamples
    reconstructor: Reconstructor | None
    chosen_rules: tuple[ReconstructionRule, ...] | None = None

    @classmethod
    def from_network(
        cls,
        network: IntegralNetwork,
        task: Task,
        *,
        num_recalibration: int = NUM_RECALIBRATION,
        rules: tuple[ReconstructionRule, ...] | None = None,
    ) -> CandidateBuilder:
        """Captures the network's activations, which reconstruction needs.

        Args:
            network: on the task's device.
            task: whose samples are used.
            num_recalibration: training samples that batch norm is recalibrated on.
            rules: as for `chosen_rules`.
        """
        samples = task.recalibration_samples(num_recalibration)
        if rules == ():
            return cls(network, samples, task.validation, None, rules)
        try:
            reconstructor = Reconstructor.from_samples(network, reconstruction_samples(samples))
        except InputError:  # too few samples, or all alike: nothing can be reconstructed
            reconstructor = None
        return cls(network, samples, task.validation, reconstructor, rules)

    def build(self, widths: Mapping[str, int], rival: SampleScores | None = None) -> BuiltCandidate:
        """The candidate at the widths.

        Args:
            rival: of another candidate on the validation samples; see `evaluate_module`.

        Raises:
            WidthsError: widths that the network does not allow.
        """
        best = self.recalibrate(
            self.network.discretize(widths), is_reconstructed=False, rival=rival
        )
        if dict(widths) != self.network.full_widths:
            for rule in self.rules:
                found = self._reconstruct(widths, rule, rival=rival)
                if _is_better(found.score, best.score):
                    best = found
        return best

    def recalibrate(
        self, module: nn.Module, *, is_reconstructed: bool, rival: SampleScores | None = None
    ) -> BuiltCandidate:
        """Recalibrates and scores a module that was discretized from the network."""
        num_samples = recalibrate(module, self.recalibration)
        score = evaluate_module(module, self.validation, rival)
        return BuiltCandidate(module, is_reconstructed, score, num_samples)

    @functools.cached_property
    def rules(self) -> tuple[ReconstructionRule, ...]:
        """The reconstruction rules that are tried at every width: better than sampling at the mean
        of a few, and quick enough.

        A network that was trained at reduced widths computes well with sampled weights, and each
        rule that is tried costs as much as sampling does.
        """
        if self.chosen_rules is not None:
            return self.chosen_rules
        if self.reconstructor is None:
            return ()
        end_s = time.monotonic() + MAX_PROBING_S
        least = self.network.min_ratio
        probes = [self.network.uniform_widths(least + (1 - least) * x) for x in _PROBES]
        sampled = sum(
            self.recalibrate(self.network.discretize(widths), is_reconstructed=False).score.value
            for widths in probes
        )
        chosen = []
        for rule in RECONSTRUCTION_RULES:
            try:
                found = [
                    self._reconstruct(
                        widths, rule, deadline_s=min(end_s, time.monotonic() + MAX_RECONSTRUCTION_S)
                    )
                    for widths in probes
                ]
            except TimeoutError:
                break
            if sum(one.score.value for one in found) > sampled:
                chosen.append(rule)
        return tuple(chosen)

    def _reconstruct(
        self,
        widths: Mapping[str, int],
        rule: ReconstructionRule,
        *,
        rival: SampleScores | None = None,
        deadline_s: float = math.inf,
    ) -> BuiltCandidate:
        assert self.reconstructor is not None
        module = self.reconstructor.discretize(widths, rule, deadline_s=deadline_s)
        return self.recalibrate(module, is_reconstructed=True, rival=rival)


def _is_better(one: Score, other: Score) -> bool:
    """Whether a score ranks above another; one on all samples above an estimate."""
    if one.is_partial != other.is_partial:
        return other.is_partial
    return one.rank > other.rank


def reconstruction_samples(samples: StandardizedSamples) -> Tensor:
    """Training inputs for weight reconstruction and channel ranking, limited by memory.

    Args:
        samples: of the training split.

    Returns:
        Standardized inputs (n, *input_shape): the first n samples.
    """
    num = max(1, min(NUM_RECONSTRUCTION, MAX_RECONSTRUCTION_VALUES // samples.num_values))
    return samples.standardized(slice(0, num))
