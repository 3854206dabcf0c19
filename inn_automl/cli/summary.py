"""Summary of a finished job on a terminal: a table for each front, and the paths of the files."""

from __future__ import annotations

from pathlib import Path

import click

from inn_automl.cli.text_table import text_table
from inn_automl.core.metric import Metric
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import DeviceResult, FrontPoint, JobResult
from inn_automl.reporting.class_rows import class_rows, recommended_point
from inn_automl.reporting.series import front_series, short_count

MAX_MISTAKES_SHOWN = 3


def print_summary(result: JobResult, out: Path, browse_command: str) -> None:
    """Prints the fronts of `result`, where the bundles under `out` are, and how to browse them."""
    for device in result.devices:
        click.echo(front_table(device))
        click.echo(device.recommendation)
        if classes := classes_table(device):
            click.echo(classes)
        recommended = next(
            (point for point in device.front if point.id == device.recommended), None
        )
        if recommended:
            click.echo(f"Its bundle: {out / recommended.bundle}")
        click.echo()
    folders = sorted(
        {str((out / point.bundle).parent) for device in result.devices for point in device.front}
    )
    if folders:
        click.echo(f"All bundles: {', '.join(folders)}")
    click.echo(f"All numbers: {out / 'result.json'}")
    click.echo(f"Browse the fronts in MLflow: {browse_command}")


def front_table(device: DeviceResult) -> str:
    """One device's front, fastest first, for `click.echo`; the recommended point is marked with
    `*`, and in colour.
    """
    series = front_series(device)
    percentiles, metric = _percentiles(device), series.metric
    numbers = [
        metric.label,
        f"test {metric.label}",
        *(f"p{percentile:g} ms" for percentile in percentiles),
    ]
    numbers += ["params", "MACs", "size"]
    columns = ["", "id", *numbers]
    has_ties = any(series.ties)
    if has_ties:
        columns.append("ties")
    has_precisions = any(point.precision != DEFAULT for point in series.points)
    if has_precisions:
        columns.append("in")
    rows = [
        [
            "*" if index == series.recommended else "",
            *_cells(point, percentiles, metric),
            *([series.ties[index]] if has_ties else []),
            *([point.precision] if has_precisions else []),
        ]
        for index, point in enumerate(series.points)
    ]
    lines = [
        click.style(line, fg="green", bold=True) if line.startswith("*") else line
        for line in text_table(columns, rows, right=numbers).splitlines()
    ]
    title = f"{device.name} ({series.setting})" if series.setting else device.name
    caption = "* recommended. " if series.recommended is not None else ""
    label = f"{metric.label[0].upper()}{metric.label[1:]}"
    caption += f"{label} in {metric.unit}; in" if metric.unit else "In"
    caption += " brackets 95 % confidence intervals."
    if has_ties:
        caption += " Points with a letter in common are ties on the validation samples."
    return "\n".join([click.style(title, bold=True), *lines, click.style(caption, dim=True)])


def classes_table(device: DeviceResult) -> str:
    """The classes of a device's recommended point on the test split, for `click.echo`; empty where
    there are none.
    """
    rows, point = class_rows(device), recommended_point(device)
    if not rows or point is None or point.test_classes is None:
        return ""
    columns = list(rows[0])
    num_classes = len(point.test_classes.classes)
    which = "classes" if len(rows) == num_classes else f"the worst {len(rows)} of {num_classes}"
    title = click.style(f"{point.id} on the test split, {which}", bold=True)
    table = text_table(columns, [list(row.values()) for row in rows], right=columns[1:])
    mistakes = ", ".join(
        f"{one.true} as {one.predicted} {one.count}x"
        for one in point.test_classes.mistakes[:MAX_MISTAKES_SHOWN]
    )
    caption = "In %." + (f" Most frequent mistakes: {mistakes}." if mistakes else "")
    return "\n".join([title, *table.splitlines(), click.style(caption, dim=True)])


def _percentiles(device: DeviceResult) -> list[float]:
    """Percentiles of every table, and that of the device's bound."""
    return sorted({50.0, 95.0} | {point.latency_ms.percentile for point in device.front})


def _cells(point: FrontPoint, percentiles: list[float], metric: Metric) -> list[str]:
    latency = point.latency_ms
    values = {50.0: latency.p50, 95.0: latency.p95, latency.percentile: latency.at_percentile}
    low, high = (
        metric.number(end, decimals=max(1, metric.decimals - 1))
        for end in point.test_metric_value_ci
    )
    return [
        point.id,
        metric.number(point.metric_value),
        f"{metric.number(point.test_metric_value)} ({low}-{high})",
        *(
            f"{values[percentile]:.3g}"
            + (
                f" ({latency.ci[0]:.3g}-{latency.ci[1]:.3g})"
                if percentile == latency.percentile
                else ""
            )
            for percentile in percentiles
        ),
        short_count(point.params),
        short_count(point.macs),
        f"{short_count(point.size_bytes)}B",
    ]
