"""A task: a dataset, its objective, and its splits as standardized tensors.

It is made once, of the dataset that a job loads, and passed down to training, evaluation and
fine-tuning.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inn_automl.core.errors import InputError
from inn_automl.core.metric import Metric, check_class_weights, metric_of_task
from inn_automl.tasks.classification import Classification, ClassWeights
from inn_automl.tasks.objective import Objective
from inn_automl.tasks.regression import Regression
from inn_automl.tasks.standardized import StandardizedSamples
from inn_automl.tasks.super_resolution import SuperResolution

if TYPE_CHECKING:
    from inn_automl.data import Dataset

SPLITS = ("train", "validation", "test")

NUM_RECALIBRATION = 2048
"""Training samples for batch-norm statistics, as many as US-Nets and Once-for-All use."""
MAX_RECALIBRATION_VALUES, MIN_RECALIBRATION = 3 * 2**23, 256
"""Input values that these samples have at most, and samples that there are at least: large images
have so many positions that fewer give the same statistics (512 of 128 x 128 pixels).
"""


@dataclass(frozen=True, eq=False)
class Task:
    """A dataset with its objective, and its splits as standardized tensors on one device.

    A split becomes tensors when it is first used, and stays in memory. Other processes receive the
    dataset alone.

    Attributes:
        dataset: as loaded.
        objective: loss, targets and metric of the dataset's kind of task.
        device: of the tensors, and of the networks that are trained and evaluated on them.
    """

    dataset: Dataset
    objective: Objective
    device: torch.device

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        *,
        metric: str | None = None,
        class_weights: ClassWeights = "none",
        device: str | torch.device = "cpu",
    ) -> Task:
        """The task that a dataset sets.

        Args:
            metric: name of the metric that models are compared by; None for the default.
            class_weights: of a classification: `balanced` lets all classes weigh the same in the
                losses.

        Raises:
            UnknownNameError: there is no such metric or class.
            SpecError: the metric or the weights do not fit the dataset's task.
        """
        chosen = metric_of_task(metric, dataset.task, dataset.classes)
        check_class_weights(class_weights, dataset.task)
        return cls(dataset, _objective(dataset, chosen, class_weights), torch.device(device))

    def to(self, device: str | torch.device) -> Task:
        """The same task on a device; itself where it is there already."""
        if torch.device(device) == self.device:
            return self
        return Task(self.dataset, self.objective, torch.device(device))

    def with_splits(self, train: np.ndarray, validation: np.ndarray) -> Task:
        """The same task with other training and validation samples, standardized as before."""
        dataset = dataclasses.replace(self.dataset, train=train, validation=validation)
        return Task(dataset, self.objective, self.device)

    @property
    def metric(self) -> Metric:
        """The metric that models are compared by."""
        return self.objective.metric

    @functools.cached_property
    def train(self) -> StandardizedSamples:
        """All training samples."""
        return self.samples(self.dataset.train)

    @functools.cached_property
    def validation(self) -> StandardizedSamples:
        """All validation samples."""
        return self.samples(self.dataset.validation)

    @functools.cached_property
    def test(self) -> StandardizedSamples:
        """All test samples."""
        return self.samples(self.dataset.test)

    def split(self, name: str) -> StandardizedSamples:
        """All samples of one split.

        Raises:
            InputError: there is no such split.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: choose one of {', '.join(SPLITS)}.")
        found: StandardizedSamples = getattr(self, name)
        return found

    def recalibration_samples(self, num_samples: int = NUM_RECALIBRATION) -> StandardizedSamples:
        """A fixed random subset of the training split, for batch-norm statistics.

        It is the same for all candidates, so that they differ in widths only.
        """
        order = np.random.default_rng(0).permutation(self.dataset.train)
        fitting = MAX_RECALIBRATION_VALUES // math.prod(self.dataset.input_shape)
        return self.samples(order[: min(num_samples, max(fitting, MIN_RECALIBRATION))])

    def samples(self, indices: np.ndarray) -> StandardizedSamples:
        """Samples of the dataset.

        Args:
            indices: (n,) positions in the dataset's x and y.
        """
        return StandardizedSamples(self.dataset, indices, self.objective, self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the dataset without its copies as tensors."""
        return Task, (self.dataset, self.objective, self.device)


def _objective(dataset: Dataset, metric: Metric, class_weights: ClassWeights) -> Objective:
    if dataset.task == "classification":
        return Classification(dataset, metric, class_weights)
    return Regression(dataset) if dataset.task == "regression" else SuperResolution(dataset)
