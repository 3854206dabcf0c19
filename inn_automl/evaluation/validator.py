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
    def from_task(cls, task: Task) -> Validator:
        """The validator of a task; the same samples for every network."""
        order = np.random.default_rng(0).permutation(task.dataset.validation)
        return cls(
            recalibration=task.recalibration_samples(_NUM_RECALIBRATION),
            validation=task.samples(order[:_MAX_VALIDATION]),
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
