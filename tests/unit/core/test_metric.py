from __future__ import annotations

import numpy as np
import pytest

from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.core.metric import (
    ACCURACY,
    PSNR,
    R2,
    Metric,
    check_class_weights,
    get_metric,
    metric_of_task,
)


@pytest.mark.parametrize(
    ("metric", "value", "text", "brief", "axis"),
    [
        (ACCURACY, 0.97123, "97.12 %", "97.1 %", "accuracy (%)"),
        (R2, 0.91234, "0.9123", "0.912", "R²"),
        (PSNR, 31.204, "31.20 dB", "31.2 dB", "PSNR (dB)"),
    ],
)
def test_values_as_people_read_them(
    metric: Metric, value: float, text: str, brief: str, axis: str
) -> None:
    assert (metric.text(value), metric.brief(value), metric.axis) == (text, brief, axis)
    assert get_metric(metric.name) is metric


@pytest.mark.parametrize(
    ("metric", "low", "high"), [(ACCURACY, 0.0, 0.99), (R2, -3.0, 0.999), (PSNR, 5.0, 60.0)]
)
def test_strength_grows_with_quality_and_back(metric: Metric, low: float, high: float) -> None:
    metric_value = np.linspace(low, high, 50)
    transformed = metric.transform(metric_value)
    assert (np.diff(transformed) > 0).all()
    np.testing.assert_allclose(metric.untransform(transformed), metric_value, atol=1e-9)


def test_an_error_ten_times_smaller_is_as_much_stronger_in_any_metric() -> None:
    steps = [
        float(np.diff(metric.transform(np.array(pair)))[0])
        for metric, pair in ((ACCURACY, [0.8, 0.98]), (R2, [0.8, 0.98]), (PSNR, [20.0, 30.0]))
    ]
    np.testing.assert_allclose(steps, np.log(10))


def test_an_unknown_metric_names_the_known() -> None:
    with pytest.raises(UnknownNameError, match="psnr_db"):
        get_metric("psnr")
    with pytest.raises(UnknownNameError, match="did you mean 'balanced_accuracy'"):
        get_metric("balanced_acuracy")
    with pytest.raises(UnknownNameError, match="recall:CLASS"):
        get_metric("recall:")


def test_each_task_has_its_metrics() -> None:
    assert metric_of_task(None, "classification") == ACCURACY
    assert metric_of_task(None, "super-resolution") == PSNR
    assert metric_of_task("r2", "regression") == R2
    with pytest.raises(SpecError, match="'macro_f1' is none of regression: use r2, or leave it"):
        metric_of_task("macro_f1", "regression")
    with pytest.raises(SpecError, match=r"use accuracy or .* or recall:CLASS"):
        metric_of_task("r2", "classification")
    with pytest.raises(SpecError, match="'recall:cat' is none of regression"):
        metric_of_task("recall:cat", "regression")


def test_the_recall_of_a_class_names_the_class() -> None:
    metric = metric_of_task("recall:cat, wild", "classification", ("cat, wild", "dog"))
    assert (metric.label, metric.key) == ("recall of cat, wild", "recall_cat_ wild")
    assert metric.text(0.5) == "50.00 %"
    with pytest.raises(UnknownNameError, match=r"unknown class 'dgo'.* did you mean 'dog'"):
        metric_of_task("recall:dgo", "classification", ("cat", "dog"))


def test_only_classes_are_weighed() -> None:
    check_class_weights("balanced", "classification")
    with pytest.raises(SpecError, match="class_weights = 'balanced' needs classes"):
        check_class_weights("balanced", "regression")
