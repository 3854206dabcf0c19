"""Fronts of other tasks: no value that is no share is ever shown as a percentage, nor called an
accuracy.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import pytest

from inn_automl.cli.summary import print_summary
from inn_automl.core.metric import PSNR, R2, Metric
from inn_automl.core.result import Candidate, FrontPoint, JobResult
from inn_automl.reporting import tables, views
from inn_automl.reporting.charts import front_chart, fronts_chart, learning_curves_chart
from inn_automl.reporting.figures import write_png
from inn_automl.reporting.series import front_series, metric_range
from tests.unit.reporting.drawn import mark
from tests.unit.reporting.job_samples import make_job


def in_metric(job: JobResult, metric: Metric, low: float, high: float) -> JobResult:
    """The same job with metric values between two values of another metric."""

    def convert(accuracy: float) -> float:
        return low + (high - low) * accuracy

    def point(one: FrontPoint) -> FrontPoint:
        values = {
            "metric_value": convert(one.metric_value),
            "test_metric_value": convert(one.test_metric_value),
            "test_metric_value_ci": tuple(map(convert, one.test_metric_value_ci)),
        }
        return FrontPoint.model_validate({**one.model_dump(), **values})

    devices = [
        device.model_copy(
            update={
                "metric": metric.name,
                "front": [point(p) for p in device.front],
                "recommendation": "The best.",
            }
        )
        for device in job.devices
    ]
    return job.model_copy(update={"devices": devices})


@pytest.fixture(params=[(PSNR, 20.0, 35.0), (R2, 0.0, 1.0)], ids=["psnr", "r2"])
def made(request: pytest.FixtureRequest) -> tuple[JobResult, Metric, Sequence[Candidate]]:
    metric, low, high = request.param
    job, candidates, _ = make_job()
    device = job.devices[0].name
    others = [
        Candidate.model_validate(
            {**c.model_dump(), "metric_value": low + (high - low) * c.metric_value}
        )
        for c in candidates[device]
    ]
    return in_metric(job, metric, low, high), metric, others


def test_a_terminal_and_a_description(
    made: tuple[JobResult, Metric, Sequence[Candidate]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job, metric, _ = made
    print_summary(job, tmp_path, "browse")
    shown = capsys.readouterr().out
    assert metric.label in shown and metric.number(job.devices[0].front[0].metric_value) in shown
    assert "accuracy" not in shown.casefold() and "Accuracy" not in shown
    assert ("PSNR in dB" in shown) == (metric == PSNR)
    markdown = tables.front_markdown(job.devices[0])
    assert metric.text(job.devices[0].front[0].metric_value) in markdown
    for page in (shown, markdown):
        assert page.count("%") == page.count("95 %")


def test_rows_and_metrics_have_the_metric_in_their_names(
    made: tuple[JobResult, Metric, Sequence[Candidate]],
) -> None:
    job, metric, candidates = made
    device = job.devices[0]
    found = {(name, step): value for name, value, step in tables.front_metrics(device)}
    assert found[f"front/{metric.name}", 0] == device.front[0].metric_value
    assert found[f"front/test_{metric.name}", 0] == device.front[0].test_metric_value
    rows = tables.candidates_table(candidates, device)
    assert rows[metric.name] == sorted((c.metric_value for c in candidates), reverse=True)
    curves = tables.training_metrics(
        [{"epoch": 1, "train_loss": 0.5, "metric_values": {"full": 3.0}}], metric.name
    )
    assert curves == [("training/loss", 0.5, 1), (f"training/{metric.name}_full", 3.0, 1)]
    names = {name for name, _ in found} | set(rows) | {name for name, _, _ in curves}
    assert not [name for name in names if "accuracy" in name]


def test_figures(made: tuple[JobResult, Metric, Sequence[Candidate]], tmp_path: Path) -> None:
    job, metric, candidates = made
    device = job.devices[0]
    series = front_series(device, candidates)
    chart = front_chart(series)
    front = mark(chart, "front")
    assert front["encoding"]["y"]["title"] == metric.axis
    assert [row["value"] for row in front["rows"]] == [p.metric_value for p in series.points]
    text = chart.to_json() + fronts_chart([front_series(device)]).to_json()
    assert "accuracy" not in text.casefold()
    low, high = metric_range([front_series(device)])
    assert (
        low
        < min(p.test_metric_value_ci[0] for p in device.front)
        <= device.front[-1].metric_value
        < high
    )
    assert write_png(chart, tmp_path / "front.png").stat().st_size > 1000
    history = [
        {"epoch": 1, "train_loss": 0.5, "metric_values": {"full": device.front[0].metric_value}}
    ]
    curves = learning_curves_chart(history, metric)
    assert metric.axis in curves.to_json(ensure_ascii=False)
    assert write_png(curves, tmp_path / "curves.png").stat().st_size > 1000


def test_views_draw_each_metric_once() -> None:
    envelope = json.loads(views.front_view("Fronts", "", created_at_ms=1, metrics=[PSNR, R2]))
    state = json.loads(zlib.decompress(b64decode(envelope["state"].split(";", 1)[1])))
    drawn = [chart["metricKey"] for chart in state["compareRunCharts"]]
    assert drawn[:4] == ["front/psnr_db", "front/test_psnr_db", "front/r2", "front/test_r2"]
    assert not [name for name in drawn if "accuracy" in name]
