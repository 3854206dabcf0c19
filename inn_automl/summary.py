"""What a finished job shows on a terminal: a table for each front, and where to find the rest."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from inn_automl.metric import Metric
from inn_automl.precision import DEFAULT
from inn_automl.result import DeviceResult, FrontPoint, JobResult
from inn_automl.tracking.series import front_series, short_count

PAGE_COLUMNS = 120
"""Width of the tables where standard output is no terminal."""


def print_summary(result: JobResult, out: Path, browse_command: str, console: Console | None = None) -> None:
    """Prints the fronts of `result`, where the bundles under `out` are, and how to browse them."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = PAGE_COLUMNS
    for device in result.devices:
        console.print(front_table(device))
        console.print(device.recommendation, markup=False, soft_wrap=True)
        recommended = next((point for point in device.front if point.id == device.recommended), None)
        if recommended:
            console.print(f"Its bundle: {out / recommended.bundle}", markup=False, soft_wrap=True)
        console.print()
    folders = sorted({str((out / point.bundle).parent) for device in result.devices for point in device.front})
    if folders:
        console.print(f"All bundles: {', '.join(folders)}", markup=False, soft_wrap=True)
    console.print(f"All numbers: {out / 'result.json'}", markup=False, soft_wrap=True)
    console.print(f"Browse the fronts in MLflow: {browse_command}", markup=False, soft_wrap=True)


def front_table(device: DeviceResult) -> Table:
    """One device's front, fastest first; the recommended point is marked with `*`."""
    series = front_series(device)
    title = f"{device.name} ({series.setting})" if series.setting else device.name
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("")
    table.add_column("id", overflow="fold")
    metric = series.metric
    table.add_column(metric.label, justify="right")
    table.add_column(f"test {metric.label}", justify="right", no_wrap=True)
    for percentile in _percentiles(device):
        table.add_column(f"p{percentile:g} ms", justify="right", no_wrap=True)
    for name in ("params", "MACs", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    has_precisions = any(point.precision != DEFAULT for point in series.points)
    if has_precisions:
        table.add_column("in", no_wrap=True)
    for index, point in enumerate(series.points):
        best = index == series.recommended
        cells = [*_cells(point, _percentiles(device), metric), *([point.precision] if has_precisions else [])]
        table.add_row("*" if best else "", *cells, style="bold green" if best else None)
    table.caption = "* recommended. " if series.recommended is not None else ""
    label = f"{metric.label[0].upper()}{metric.label[1:]}"
    table.caption += f"{label} in {metric.unit}; in" if metric.unit else "In"
    table.caption += " brackets 95 % confidence intervals."
    return table


def _percentiles(device: DeviceResult) -> list[float]:
    """Those that every table shows, and the one that the device's bound is about."""
    return sorted({50.0, 95.0} | {point.latency_ms.percentile for point in device.front})


def _cells(point: FrontPoint, percentiles: list[float], metric: Metric) -> list[str]:
    latency = point.latency_ms
    values = {50.0: latency.p50, 95.0: latency.p95, latency.percentile: latency.at_percentile}
    low, high = (metric.number(end, decimals=max(1, metric.decimals - 1)) for end in point.test_quality_ci)
    return [
        point.id,
        metric.number(point.quality),
        f"{metric.number(point.test_quality)} ({low}-{high})",
        *(
            f"{values[percentile]:.3g}"
            + (f" ({latency.ci[0]:.3g}-{latency.ci[1]:.3g})" if percentile == latency.percentile else "")
            for percentile in percentiles
        ),
        short_count(point.params),
        short_count(point.macs),
        f"{short_count(point.size_bytes)}B",
    ]
