"""Scores of several widths of a network that is still trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inn_automl.evaluation.candidates import evaluate_module, sample_candidate
from inn_automl.tasks import StandardizedSamples

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

# Validation after each epoch only has to rank epochs, so it may be coarser than the evaluation of
# a candidate.
_NUM_RECALIBRATION = 512
_MAX_VALIDATION = 2_000


@dataclass(frozen=True, eq=False)
class Validator:
    """Scores widths of a network, with sampled weights, on the validation split.

    Attributes:
        recalibration: training samples for batch-norm statistics.
        validation: samples that widths are scored on, a random part of a large split.
    """

    recalibration: StandardizedSamples
    validation: StandardizedSamples

    @classmethod
    def from_task(cls, task: Task, num_samples: int | None = None) -> Validator:
        """The validator of a task; the same samples for every network.

        Args:
            num_samples: validation samples at most, and twice as many for batch norm, where these
                are fewer than usual; None for the usual numbers.
        """
        num_validation, num_recalibration = _MAX_VALIDATION, _NUM_RECALIBRATION
        if num_samples is not None:
            num_validation = min(num_validation, num_samples)
            num_recalibration = min(num_recalibration, 2 * num_samples)
        order = np.random.default_rng(0).permutation(task.dataset.validation)
        return cls(
            recalibration=task.recalibration_samples(num_recalibration),
            validation=task.samples(order[:num_validation]),
        )

    def values(
        self, network: IntegralNetwork, widths: Mapping[str, Mapping[str, int]]
    ) -> dict[str, float]:
        """Metric values of a network at named widths.

        Args:
            network: on the device of the samples.
            widths: by name, the channels of each coupled group.
        """
        return {
            name: evaluate_module(
                sample_candidate(network, channels, self.recalibration), self.validation
            ).value
            for name, channels in widths.items()
        }
