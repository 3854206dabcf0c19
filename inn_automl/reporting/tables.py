"""A job's numbers as rows: metrics by step, tables for the artifact view, and Markdown for a run's
description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inn_automl.core.metric import ACCURACY, get_metric
from inn_automl.core.result import Candidate, DeviceResult, FrontPoint
from inn_automl.reporting.series import front_series, point_key, short_count

MAX_LISTED = 16
"""Mappings in a list that become parameters of a run: devices of a budget do, epochs of a training
curve do not.
"""
MAX_ROWS = 40
"""Points in a description: MLflow takes 8,000 characters."""

Columns = dict[str, list[Any]]
"""A table by columns, all of one length."""


def front_metrics(device: DeviceResult) -> list[tuple[str, float, int]]:
    """(name, value, step) of all that MLflow draws of a device; the step of a front point is its
    position by latency.
    """
    metrics = [
        (f"front/{name}", float(value), step)
        for step, point in enumerate(front_series(device).points)
        for name, value in _numbers(point, device.metric).items()
    ]
    metrics += [
        ("search/hypervolume", value, step)
        for step, value in enumerate(device.hypervolume, start=1)
    ]
    if error := device.cost_model_errors:
        metrics += [
            ("cost_model/median_relative_error", error.median_relative, 0),
            ("cost_model/p90_relative_error", error.p90_relative, 0),
            ("cost_model/spearman", error.spearman, 0),
        ]
        for step, (measured, predicted) in enumerate(sorted(error.held_out_ms)):
            metrics += [
                ("cost_model/measured_ms", measured, step),
                ("cost_model/predicted_ms", predicted, step),
            ]
    for point in device.front:
        if point.id == device.recommended:
            metrics += [
                (f"recommended/{name}", float(value), 0)
                for name, value in _numbers(point, device.metric).items()
            ]
    return metrics


def training_metrics(
    history: Sequence[Mapping[str, Any]], metric: str = ACCURACY.name
) -> list[tuple[str, float, int]]:
    """(name, value, step) of the learning curves; the step is the epoch."""
    metrics: list[tuple[str, float, int]] = []
    for entry in history:
        epoch = int(entry["epoch"])
        metrics += [("training/loss", float(entry["train_loss"]), epoch)]
        metrics += [
            (f"training/{get_metric(metric).key}_{name}", float(value), epoch)
            for name, value in entry["metric_values"].items()
        ]
    return metrics


def front_table(device: DeviceResult) -> Columns:
    """The front, a row a point, with its widths in columns of their own."""
    series = front_series(device)
    return _columns(
        [
            {
                "id": p.id,
                "recommended": p.id == device.recommended,
                "precision": p.precision,
                **_numbers(p, device.metric),
                "loss": p.loss,
                "ties": letters,
                "num_samples": p.latency_ms.num_samples,
                "bundle": p.bundle,
                **_widths(p.widths),
            }
            for p, letters in zip(series.points, series.ties, strict=True)
        ]
    )


def classes_table(device: DeviceResult) -> Columns:
    """Each class on the test split, a row a class of a point; empty for other tasks than
    classification.
    """
    return _columns(
        [
            {
                "id": point.id,
                "recommended": point.id == device.recommended,
                "class": one.name,
                "precision": one.precision,
                "recall": one.recall,
                "f1": one.f1,
                "support": one.support,
            }
            for point in front_series(device).points
            if point.test_classes is not None
            for one in point.test_classes.classes
        ]
    )


def candidates_table(candidates: Sequence[Candidate], device: DeviceResult) -> Columns:
    """All that the job evaluated for a device, a row a candidate, the best first."""
    on_front = {point_key(point) for point in device.front}
    return _columns(
        [
            {
                device.metric: c.metric_value,
                "predicted_latency_ms": c.predicted_latency_ms,
                "measured_latency_ms": c.measured.at_percentile if c.measured else None,
                "params": c.params,
                "macs": c.macs,
                "precision": c.precision,
                "on_front": point_key(c) in on_front,
                **_widths(c.widths),
            }
            for c in sorted(candidates, key=lambda c: -c.metric_value)
        ]
    )


def front_markdown(device: DeviceResult) -> str:
    """The front as a Markdown table under its recommendation."""
    series = front_series(device)
    lines = [device.recommendation, "", series.setting, ""]
    metric = series.metric
    label = metric.label if metric == ACCURACY else metric.axis
    latency = f"{series.percentile} latency, ms (95 % CI)"
    head = ("point", label, f"test {label} (95 % CI)", latency, "parameters", "ties")
    lines.append(f"| {' | '.join(head)} |")
    lines.append("|---|---|---|---|---|---|")
    for point, letters in list(zip(series.points, series.ties, strict=True))[:MAX_ROWS]:
        low, high = (metric.number(bound) for bound in point.test_metric_value_ci)
        mark = "**" if point.id == device.recommended else ""
        lines.append(
            f"| {mark}{point.id}{mark} | {metric.text(point.metric_value)} "
            f"| {metric.text(point.test_metric_value)} ({low} to {high}) | "
            f"{point.latency_ms.at_percentile:.4g} "
            f"({point.latency_ms.ci[0]:.4g} to {point.latency_ms.ci[1]:.4g}) | "
            f"{short_count(point.params)} | {letters} |"
        )
    if len(series.points) > MAX_ROWS:
        lines.append(f"\nand {len(series.points) - MAX_ROWS} more in front_table.json")
    return "\n".join(lines)


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names; a short list of mappings counts on, a long one is left out
    as no parameter.
    """
    result: dict[str, str] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            result.update(flat(item, f"{name}."))
        elif (
            isinstance(item, (list, tuple))
            and item
            and all(isinstance(part, Mapping) for part in item)
        ):
            for index, part in enumerate(item if len(item) <= MAX_LISTED else ()):
                result.update(flat(part, f"{name}.{index}."))
        elif item is not None:
            result[name] = item if isinstance(item, str) else json.dumps(item, default=str)
    return result


def _numbers(point: FrontPoint, name: str) -> dict[str, float]:
    latency, metric = point.latency_ms, get_metric(name).key
    return {
        metric: point.metric_value,
        f"test_{metric}": point.test_metric_value,
        f"test_{metric}_ci_low": point.test_metric_value_ci[0],
        f"test_{metric}_ci_high": point.test_metric_value_ci[1],
        "latency_ms": latency.at_percentile,
        "latency_ci_low_ms": latency.ci[0],
        "latency_ci_high_ms": latency.ci[1],
        "latency_p50_ms": latency.p50,
        "latency_p95_ms": latency.p95,
        "latency_p99_ms": latency.p99,
        "params": point.params,
        "macs": point.macs,
        "size_bytes": point.size_bytes,
        **(
            {}
            if point.peak_memory_bytes is None
            else {"peak_memory_bytes": point.peak_memory_bytes}
        ),
    }


def _widths(widths: Mapping[str, int]) -> dict[str, int]:
    return {f"width {group}": size for group, size in widths.items()}


def _columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    return {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}
