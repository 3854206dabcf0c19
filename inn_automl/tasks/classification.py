"""Classification: cross-entropy, and how well samples are put into their classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inn_automl.core.metric import ACCURACY, AUROC, BALANCED_ACCURACY, MACRO_F1, RECALL, Metric
from inn_automl.core.sample_scores import SampleScores
from inn_automl.data.augmentation import augment
from inn_automl.data.sound import augment_sound
from inn_automl.tasks import class_metrics
from inn_automl.tasks.class_metrics import ClassMetric, wilson
from inn_automl.tasks.objective import (
    Learned,
    Objective,
    Score,
    mean_interval,
)

if TYPE_CHECKING:
    from inn_automl.data import Dataset

ClassWeights = Literal["none", "balanced"]

__all__ = ["ClassWeights", "Classification", "wilson"]

LEAST_PROBABILITY = 1e-7
"""Probability that every class is taken to have at least, as float32 resolves no less."""
_LABEL, _PREDICTED, _LOSS, _FIRST_PROBABILITY = range(4)
"""Columns of `scores`."""


class Classification(Objective):
    """Outputs are logits (N, classes), targets class indices (N,), or probabilities (N, classes)
    where samples were mixed of two.

    Args:
        dataset: None where neither metric nor weights depend on it.
        metric: accuracy, balanced accuracy, macro F1, AUROC or the recall of a class.
        class_weights: `balanced` weighs samples in the losses so that all classes of the training
            split weigh the same.
    """

    def __init__(
        self,
        dataset: Dataset | None = None,
        metric: Metric = ACCURACY,
        class_weights: ClassWeights = "none",
    ) -> None:
        self.metric = metric
        self._classes = () if dataset is None else dataset.classes
        self._is_sound = dataset is not None and dataset.sample_rate_hz is not None
        self._weights: Tensor | None = None
        if class_weights == "balanced":
            assert dataset is not None
            counts = np.bincount(dataset.y[dataset.train], minlength=dataset.num_classes)
            weights = counts.sum() / (dataset.num_classes * np.maximum(counts, 1))
            self._weights = torch.as_tensor(weights, dtype=torch.float32)

    def augment(
        self, x: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return (augment_sound if self._is_sound else augment)(x, generator), targets

    def loss(self, output: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        if self._weights is None:
            return F.cross_entropy(output, targets, label_smoothing=label_smoothing)
        each = F.cross_entropy(output, targets, label_smoothing=label_smoothing, reduction="none")
        weights = self._weights.to(output)
        of_samples = targets @ weights if targets.is_floating_point() else weights[targets]
        return _weighted_mean(each, of_samples)

    def soft_targets(
        self,
        output: Tensor,
        targets: Tensor,
        *,
        label_fraction: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        labels = targets  # of mixed samples probabilities already
        if not targets.is_floating_point():
            labels = F.one_hot(targets, output.shape[1]).to(output.dtype)
        labels = labels * (1 - label_smoothing) + label_smoothing / output.shape[1]
        return torch.lerp(output.softmax(1), labels, label_fraction)

    def soft_loss(self, output: Tensor, soft_targets: Tensor) -> Tensor:
        if self._weights is None:
            return F.cross_entropy(output, soft_targets)
        # Weights belong to samples, not to the classes inside of a target: the outputs of the full
        # width, which learned with these weights, are what a reduced width is to give.
        each = F.cross_entropy(output, soft_targets, reduction="none")
        return _weighted_mean(each, soft_targets @ self._weights.to(soft_targets))

    def scores(self, output: Tensor, y: Tensor) -> Tensor:
        """(N, 3) or (N, 3 + classes): label, predicted class, log loss, and for AUROC the
        probabilities.
        """
        logs = output.double().log_softmax(1)
        loss = -logs.gather(1, y[:, None]).clamp(min=float(np.log(LEAST_PROBABILITY)))
        columns = [y[:, None].double(), output.argmax(1, keepdim=True).double(), loss]
        if self.metric == AUROC:
            columns.append(logs.exp())
        return torch.cat(columns, dim=1)

    def score(self, scores: NDArray[np.float64]) -> Score:
        """The metric value with Wilson's interval (see `class_metrics`), log loss and confusion."""
        y, predicted = scores[:, _LABEL].astype(np.int64), scores[:, _PREDICTED].astype(np.int64)
        found = self._metric_of(scores)
        losses = scores[:, _LOSS]
        return Score(
            found.value,
            found.interval,
            len(scores),
            loss=float(losses.mean()),
            confusion=_confusion(y, predicted),
            samples=SampleScores(found.contributions.astype(np.float32), losses.astype(np.float32)),
        )

    def _metric_of(self, scores: NDArray[np.float64], metric: Metric | None = None) -> ClassMetric:
        metric = metric or self.metric
        y, predicted = scores[:, _LABEL].astype(np.int64), scores[:, _PREDICTED].astype(np.int64)
        if metric == BALANCED_ACCURACY:
            return class_metrics.balanced_accuracy(y, predicted)
        if metric == MACRO_F1:
            return class_metrics.macro_f1(y, predicted)
        if metric == AUROC:
            return class_metrics.auroc(y, scores[:, _FIRST_PROBABILITY:])
        if metric.name.startswith(RECALL):
            label = self._classes.index(metric.name.removeprefix(RECALL))
            return class_metrics.recall(y, predicted, label)
        return class_metrics.accuracy(y, predicted)

    def baseline(self, dataset: Dataset) -> float:
        """The metric value of naming the largest class of the training split, whatever the sample.

        Of recall, which that would make 1 or 0: of naming the class as often as it occurs.
        """
        y = dataset.y[dataset.validation]
        if self.metric.name.startswith(RECALL):
            label = self._classes.index(self.metric.name.removeprefix(RECALL))
            return float((y == label).mean())
        return self._majority(dataset, self.metric)

    def _majority(self, dataset: Dataset, metric: Metric) -> float:
        y = dataset.y[dataset.validation]
        largest = int(np.bincount(dataset.y[dataset.train]).argmax())
        constant = np.zeros((len(y), _FIRST_PROBABILITY + dataset.num_classes))
        constant[:, _LABEL], constant[:, _PREDICTED] = y, largest
        return self._metric_of(constant, metric).value

    def learned(self, score: Score, dataset: Dataset) -> Learned:
        """In the metric; where that is the recall of a class, which a constant can have, in
        balanced accuracy. The log loss is compared with that of the classes' frequencies.
        """
        assert score.samples is not None
        y = dataset.y[dataset.validation]
        counts = np.bincount(dataset.y[dataset.train], minlength=dataset.num_classes)
        prior = -np.log(np.maximum(counts[y] / counts.sum(), LEAST_PROBABILITY))
        gain, _ = mean_interval(prior - score.samples.losses)
        if not self.metric.name.startswith(RECALL):
            return replace(super().learned(score, dataset), loss_gain=gain)
        cells = np.array(score.confusion, dtype=np.int64)
        truth, predicted = cells[:, :2].T.repeat(cells[:, 2], axis=1)
        found = class_metrics.balanced_accuracy(truth, predicted)
        baseline = self._majority(dataset, BALANCED_ACCURACY)
        return Learned(found.value, found.interval, baseline, BALANCED_ACCURACY.name, gain)


def _confusion(
    y: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[tuple[int, int, int], ...]:
    cells, counts = np.unique(np.stack([y, predicted]), axis=1, return_counts=True)
    return tuple(zip(*cells.tolist(), counts.tolist(), strict=True))


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum()
