from __future__ import annotations

from inn_automl.core.result import FrontPoint, LatencySummary


def test_a_point_prints_the_numbers_that_points_are_compared_by() -> None:
    point = FrontPoint(
        id="a1b2",
        widths={f"group{i}": i for i in range(50)},
        precision="int8",
        metric_value=0.91234,
        test_metric_value=0.9,
        test_metric_value_ci=(0.88, 0.92),
        latency_ms=LatencySummary(
            p50=1.0,
            p95=1.25,
            p99=2.0,
            percentile=95.0,
            at_percentile=1.25,
            ci=(1.2, 1.3),
            num_samples=200,
        ),
        params=12345,
        macs=10**6,
        size_bytes=50000,
        bundle="bundles/a1b2.zip",
    )
    assert str(point) == (
        "a1b2: metric value 0.9123, test 0.9 (0.88 to 0.92), p95 1.25 ms (1.2 to 1.3), "
        "12,345 params, int8"
    )
    assert "group49" in repr(point)
