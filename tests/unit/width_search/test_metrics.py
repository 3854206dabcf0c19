"""The search in the metric of other tasks than classification."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inn_automl.core.metric import ACCURACY, PSNR, R2
from inn_automl.core.spec import SearchBudget
from inn_automl.width_search.run import run_search
from inn_automl.width_search.space import SearchSpace
from inn_automl.width_search.surrogate import MetricSurrogate
from tests.unit.width_search.search_samples import GROUPS, accuracy_of, device

SPACE = SearchSpace(GROUPS)


def decibels(metric_value: float) -> float:
    """The PSNR of images whose squared error is as large a share of the squared peak."""
    return -10 * math.log10(1 - metric_value)


def test_a_surrogate_of_decibels_is_that_of_their_errors() -> None:
    rng = np.random.default_rng(0)
    points = np.array([[int(rng.choice(values)) for values in SPACE.values] for _ in range(40)])
    metric_value = np.array([accuracy_of(SPACE.from_key(tuple(point))) for point in points])
    shares = MetricSurrogate(points, metric_value).predict(points)
    in_db = MetricSurrogate(
        points, np.array([decibels(one) for one in metric_value]), PSNR
    ).predict(points)
    for one, other in zip(shares, in_db, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        PSNR.untransform(in_db[0]), [decibels(one) for one in metric_value], atol=1.0
    )


@pytest.mark.parametrize(
    ("metric", "metric_value", "worst"),
    [(PSNR, decibels, 3.0), (R2, lambda metric_value: 4 * metric_value - 3, 0.0)],
)
def test_the_search_finds_about_as_good_a_front_as_in_accuracy(
    tmp_path: Path, metric: object, metric_value: object, worst: float
) -> None:
    budget = SearchBudget(max_evaluations=60, batch_size=6, patience=50)
    devices = [device("laptop", max_latency_ms=20.0)]
    found = run_search(
        devices,
        lambda batch: [metric_value(accuracy_of(one)) for one in batch],  # type: ignore[operator]
        budget,
        tmp_path / "other",
        baseline=worst,
        metric=metric,  # type: ignore[arg-type]
    ).devices[0]
    plain = run_search(
        devices,
        lambda batch: [accuracy_of(widths) for widths in batch],
        budget,
        tmp_path / "plain",
        metric=ACCURACY,
    ).devices[0]
    assert found.reference_point[1] == worst
    assert list(found.hypervolume) == sorted(found.hypervolume) and found.hypervolume[-1] > 0
    best, best_plain = (
        max(accuracy_of(one.candidates[i].widths) for i in one.front) for one in (found, plain)
    )
    assert best == pytest.approx(best_plain, abs=0.005)
    assert len(found.front) >= 0.7 * len(plain.front)
