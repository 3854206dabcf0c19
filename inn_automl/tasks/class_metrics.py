"""Metrics of a classifier as means of contributions, one a sample.

A metric that is no mean over samples is replaced by its first-order expansion: a sample's
contribution is the value plus the sample's influence on it (F. R. Hampel, "The Influence Curve and
Its Role in Robust Estimation", JASA 1974). The mean of the contributions is the value, their
spread gives its interval, and the differences of two models' contributions on the same samples
compare them. For AUROC these are the structural components of E. R. DeLong, D. M. DeLong and
D. L. Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
Characteristic Curves", Biometrics 1988.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from inn_automl.tasks.objective import NORMAL_95

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassMetric:
    """The value of a metric on samples.

    Attributes:
        value: a fraction.
        contributions: (N,), whose mean is the value.
        num_effective: independent samples that a fraction without an error would rest on.
    """

    value: float
    contributions: Floats
    num_effective: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval: Wilson's, with as many samples as explain the spread of contributions.

        The effective sample size is that of surveys (N. Dean and M. Pagano, "Evaluating Confidence
        Interval Methods for Binomial Proportions in Clustered Surveys", 2015). For a fraction of
        all samples it is their number, and the interval that of E. B. Wilson, 1927.
        """
        spread = self.value * (1 - self.value)
        variance = float(self.contributions.var()) / len(self.contributions)
        num = self.num_effective
        if spread < num * variance * (1 - 1e-9):
            num = max(1.0, spread / variance)
        return _wilson(self.value, num)


def wilson(num_correct: float, num_samples: float) -> tuple[float, float]:
    """95 % confidence interval of a fraction (E. B. Wilson, 1927)."""
    return _wilson(num_correct / num_samples, num_samples)


def _wilson(fraction: float, num_samples: float) -> tuple[float, float]:
    z2 = NORMAL_95**2
    scale = 1 + z2 / num_samples
    middle = fraction + z2 / (2 * num_samples)
    reach = NORMAL_95 * math.sqrt(
        fraction * (1 - fraction) / num_samples + z2 / (4 * num_samples**2)
    )
    low = 0.0 if fraction <= 0 else (middle - reach) / scale
    high = 1.0 if fraction >= 1 else (middle + reach) / scale
    return low, high


def accuracy(y: Integers, predicted: Integers) -> ClassMetric:
    """The fraction of the samples that are put into the right class."""
    correct = (y == predicted).astype(np.float64)
    return ClassMetric(float(correct.mean()), correct, len(y))


def recall(y: Integers, predicted: Integers, label: int) -> ClassMetric:
    """The fraction of the samples of one class that are put into it; 0 where there are none."""
    of_class = y == label
    num = int(of_class.sum())
    if num == 0:
        return ClassMetric(0.0, np.zeros(len(y)), 1.0)
    value = float((predicted[of_class] == label).mean())
    gain = of_class * ((predicted == label) - value) * (len(y) / num)
    return ClassMetric(value, value + gain, num)


def balanced_accuracy(y: Integers, predicted: Integers) -> ClassMetric:
    """The mean of the recalls of the classes that there are samples of."""
    recalls = [recall(y, predicted, int(label)) for label in np.unique(y)]
    return _mean(recalls, y)


def macro_f1(y: Integers, predicted: Integers) -> ClassMetric:
    """The mean of F1 = 2 TP / (2 TP + FP + FN) over the classes in samples or predictions."""
    found = []
    for label in np.union1d(y, predicted):
        hits = 2.0 * ((y == label) & (predicted == label))
        total = (y == label) + (predicted == label).astype(np.float64)
        value = float(hits.sum() / total.sum())
        gain = (hits - value * total) / total.mean()
        found.append(ClassMetric(value, value + gain, len(y)))
    return _mean(found, y)


def auroc(y: Integers, probabilities: Floats) -> ClassMetric:
    """The area under the receiver operating characteristic; ties count half.

    Args:
        y: (N,).
        probabilities: (N, C). Of two classes, those of the second are ranked; of more, each
            class is told from the rest and the mean is taken over the classes with samples.
    """
    labels = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    found = []
    for label in labels:
        positive = y == label
        num, num_others = int(positive.sum()), int((~positive).sum())
        if num and num_others:
            found.append(_area(positive, probabilities[:, label], num, num_others))
    return _mean(found, y) if found else ClassMetric(0.5, np.full(len(y), 0.5), 1.0)


def _area(positive: NDArray[np.bool_], ranked: Floats, num: int, num_others: int) -> ClassMetric:
    """AUROC of one class with DeLong's components, from ranks (X. Sun and W. Xu, 2014)."""
    ranks = rankdata(ranked)
    placements = np.empty(len(ranked))
    placements[positive] = (ranks[positive] - rankdata(ranked[positive])) / num_others
    placements[~positive] = 1 - (ranks[~positive] - rankdata(ranked[~positive])) / num
    value = float(placements[positive].mean())
    fraction = np.where(positive, num, num_others) / len(ranked)
    return ClassMetric(value, value + (placements - value) / fraction, len(ranked))


def _mean(parts: list[ClassMetric], y: Integers) -> ClassMetric:
    """The mean of metrics; a perfect one rests on the harmonic mean of the classes' sizes."""
    _, counts = np.unique(y, return_counts=True)
    num_effective = len(counts) ** 2 / float((1.0 / counts).sum())
    value = float(np.mean([part.value for part in parts]))
    contributions = np.mean([part.contributions for part in parts], axis=0)
    return ClassMetric(value, contributions, num_effective)
