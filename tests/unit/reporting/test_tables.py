from __future__ import annotations

import click

from inn_automl.cli.summary import front_table
from inn_automl.core.result import Candidate
from inn_automl.reporting import tables
from tests.unit.reporting.job_samples import make_job


def test_metrics_of_one_step_belong_to_one_point() -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    metrics = tables.front_metrics(device)
    by_name: dict[str, dict[int, float]] = {}
    for name, value, step in metrics:
        assert step not in by_name.setdefault(name, {})
        by_name[name][step] = value
    for step, point in enumerate(device.front):
        assert by_name["front/accuracy"][step] == point.metric_value
        assert by_name["front/latency_ms"][step] == point.latency_ms.at_percentile
        assert by_name["front/params"][step] == point.params
    assert list(by_name["search/hypervolume"].values()) == device.hypervolume
    chosen = next(point for point in device.front if point.id == device.recommended)
    assert by_name["recommended/test_accuracy"] == {0: chosen.test_metric_value}


def test_peak_memory_is_drawn_where_it_is_known() -> None:
    device = make_job()[0].devices[0]
    front = [device.front[0].model_copy(update={"peak_memory_bytes": 10**7}), *device.front[1:]]
    metrics = tables.front_metrics(device.model_copy(update={"front": front}))
    assert [value for name, value, _ in metrics if name == "front/peak_memory_bytes"] == [10**7]
    assert (
        tables.front_table(device.model_copy(update={"front": front}))["peak_memory_bytes"][0]
        == 10**7
    )


def test_a_device_that_was_lost_has_nothing_to_draw() -> None:
    device = make_job()[0].devices[0]
    lost = device.model_copy(
        update={
            "front": [],
            "recommended": None,
            "cost_model_errors": None,
            "hypervolume": [],
            "environment": {},
        }
    )
    assert tables.front_metrics(lost) == []
    assert tables.front_table(lost) == {}


def test_training_metrics_step_by_epoch() -> None:
    _, _, history = make_job(num_candidates=10, epochs=3)
    metrics = tables.training_metrics(history)
    assert [(name, step) for name, _, step in metrics if name == "training/loss"] == [
        ("training/loss", e) for e in (1, 2, 3)
    ]
    assert {name for name, _, _ in metrics} == {
        "training/loss",
        "training/accuracy_smallest",
        "training/accuracy_middle",
        "training/accuracy_full",
    }


def test_candidates_are_rows_by_accuracy_and_know_who_is_on_the_front() -> None:
    result, candidates, _ = make_job()
    device = result.devices[0]
    table = tables.candidates_table(candidates[device.name], device)
    assert table["accuracy"] == sorted(table["accuracy"], reverse=True)
    assert len(table["accuracy"]) == 200
    assert sum(table["on_front"]) == len(device.front)
    assert all(
        (latency is not None) == front
        for latency, front in zip(table["measured_latency_ms"], table["on_front"], strict=True)
    )
    assert set(table) >= {"width stem", "width stage3.block0"}


def test_the_same_widths_in_another_precision_are_another_candidate() -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    point = device.front[0]
    values = {
        "widths": point.widths,
        "metric_value": 0.9,
        "params": point.params,
        "macs": point.macs,
    }
    pair = [
        Candidate(**values, precision=name, predicted_latency_ms=1.0) for name in ("fp32", "int8")
    ]
    table = tables.candidates_table(pair, device)
    assert (table["precision"], table["on_front"]) == (["fp32", "int8"], [True, False])
    small = point.model_copy(update={"precision": "int8"})
    assert tables.front_table(device.model_copy(update={"front": [small]}))["precision"] == ["int8"]
    assert front_table(device).splitlines()[1].endswith("size")  # nothing to tell apart
    shown = front_table(
        device.model_copy(update={"front": [small, *device.front[1:]]})
    ).splitlines()
    assert [line.split()[-1] for line in click.unstyle("\n".join(shown)).splitlines()[3:-1]] == [
        "int8",
        *["fp32"] * (len(device.front) - 1),
    ]


def test_markdown_fits_what_mlflow_takes_however_long_the_front() -> None:
    result, _, _ = make_job()
    device = result.devices[0]
    assert f"**{device.recommended}**" in tables.front_markdown(device)
    long = device.model_copy(update={"front": device.front * 20})
    text = tables.front_markdown(long)
    assert len(text) < 8000
    assert f"and {len(long.front) - tables.MAX_ROWS} more" in text


def test_flat_names_nested_values_and_leaves_out_long_lists_of_mappings() -> None:
    spec = {
        "model": None,
        "seed": 0,
        "budget": {"devices": [{"name": "a"}, {"name": "b"}], "shape": [1, 28]},
    }
    assert tables.flat({"spec": spec, "curve": [{"epoch": e} for e in range(100)]}) == {
        "spec.seed": "0",
        "spec.budget.devices.0.name": "a",
        "spec.budget.devices.1.name": "b",
        "spec.budget.shape": "[1, 28]",
    }
