from __future__ import annotations

import numpy as np
import pytest

from inn_automl.core.errors import UnknownNameError
from inn_automl.core.metric import ACCURACY, METRICS, PSNR, R2, Metric, get_metric


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
    assert set(METRICS) == {"accuracy", "r2", "psnr_db"}
