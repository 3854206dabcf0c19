from __future__ import annotations

import json
from pathlib import Path

import pytest

import inn_automl
from inn_automl.core.errors import InputError, UnknownNameError
from inn_automl.facade.result import Result
from tests.unit.reporting.job_samples import make_job


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("job")
    (folder / "result.json").write_text(make_job()[0].model_dump_json(), encoding="utf-8")
    return inn_automl.Result.load(folder)


def test_reads_what_a_job_wrote(result: Result) -> None:
    assert result.devices == ("laptop-1-thread", "laptop-2-threads")
    assert result.metric == "accuracy"
    assert json.loads((result.folder / "result.json").read_text()) == result.record.model_dump(
        mode="json"
    )
    assert repr(result).endswith("laptop-1-thread: 15 points, laptop-2-threads: 15 points)")


def test_a_folder_without_a_finished_job(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        Result.load(tmp_path)


def test_best_keeps_the_bound_by_its_interval(result: Result) -> None:
    front = result.front("laptop-1-thread")
    for bound in (front[2].latency_ms.ci[1], front[5].latency_ms.at_percentile):
        best = result.best(max_latency_ms=bound, device="laptop-1-thread")
        keeping = [point for point in front if point.latency_ms.ci[1] <= bound]
        assert best in keeping
        assert best.metric_value == max(point.metric_value for point in keeping)


def test_best_defaults_to_the_bound_of_the_budget(result: Result) -> None:
    device = result.record.devices[0]
    assert result.best(device=device.name).id == device.recommended
    unbounded = device.model_copy(update={"budget": {}})
    record = result.record.model_copy(update={"devices": [unbounded]})
    best = Result(result.folder, record).best()
    assert best.metric_value == max(point.metric_value for point in device.front)


def test_a_bound_that_no_point_keeps(result: Result) -> None:
    fastest = result.front("laptop-1-thread")[0].latency_ms.ci[1]
    with pytest.raises(InputError) as caught:
        result.best(max_latency_ms=1e-3, device="laptop-1-thread")
    for part in ("laptop-1-thread", "0.001 ms", f"{fastest:.4g} ms"):
        assert part in str(caught.value)


def test_devices_are_named(result: Result) -> None:
    with pytest.raises(InputError, match="laptop-1-thread, laptop-2-threads"):
        result.front()
    with pytest.raises(UnknownNameError, match="laptop-1-thread"):
        result.best(device="laptop-1-threads")


def test_the_table_has_a_row_for_each_point(result: Result) -> None:
    table = result.to_dataframe()
    assert len(table) == sum(len(device.front) for device in result.record.devices)
    assert list(table["device"].unique()) == list(result.devices)
    first = result.front("laptop-1-thread")[0]
    row = table.iloc[0]
    assert (row["id"], row["accuracy"], row["latency_ms"], row["widths"]) == (
        first.id,
        first.metric_value,
        first.latency_ms.at_percentile,
        first.widths,
    )
    assert table["recommended"].sum() == 2
    empty = [d.model_copy(update={"front": []}) for d in result.record.devices]
    record = result.record.model_copy(update={"devices": empty})
    assert Result(result.folder, record).to_dataframe().empty


def test_charts_of_one_device_and_of_all(result: Result, tmp_path: Path) -> None:
    assert "Accuracy against latency" in result.plot().to_json()
    chart = result.plot("laptop-2-threads")
    assert "laptop-2-threads" in chart.to_json()
    chart.save(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_shows_tables(result: Result) -> None:
    html = result._repr_html_()
    assert html.count("<table>") == 2
    assert html.count("★") == 2
    for device in result.record.devices:
        assert all(f"<td>{point.id}</td>" in html for point in device.front)
