"""Interactive figures of fronts, as single HTML files that need no internet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.metric import ACCURACY
from inn_automl.core.result import Candidate, DeviceResult, FrontPoint, JobResult, metric_of
from inn_automl.core.storage import write_atomically
from inn_automl.reporting import images
from inn_automl.reporting.evidence import layer_series, parity_series
from inn_automl.reporting.evidence_images import write_layers, write_parity
from inn_automl.reporting.page import write_page
from inn_automl.reporting.series import (
    COLORS,
    FrontSeries,
    front_series,
    latency_range,
    quality_range,
    short_count,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_WIDTHS_SHOWN = 24
"""Coupled groups that a hover text lists: more would not fit on a screen."""


def write_figures(
    result: JobResult,
    folder: Path,
    candidates: Mapping[str, Sequence[Candidate]] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes every figure of a job into `folder`, which it returns.

    `fronts.html` and `fronts.png` for all devices, and `devices.html` with all that is drawn of
    each on one page; `DEVICE/front.html`, `DEVICE/front.png`, `DEVICE/parity.png` for each, and
    `DEVICE/layers.png` where its layers are known; `learning_curves.png` where there is a
    `history`.
    """
    candidates = candidates or {}
    write_html(fronts_figure(result, candidates), folder / "fronts.html")
    images.write_fronts(result, folder / "fronts.png", candidates)
    fronts = {}
    for device in result.devices:
        some = candidates.get(device.name, ())
        fronts[device.name] = front_figure(device, some)
        write_html(fronts[device.name], folder / device.name / "front.html")
        images.write_front(device, folder / device.name / "front.png", some)
        if parity := parity_series(device, some):
            write_parity(parity, folder / device.name / "parity.png")
        layers = layer_series(device)
        if layers is not None:
            write_layers(layers, folder / device.name / "layers.png")
    write_page(result, fronts, candidates, folder / "devices.html")
    if history:
        images.write_learning_curves(
            history, folder / "learning_curves.png", metric_of(result.devices)
        )
    return folder


def front_figure(device: DeviceResult, candidates: Sequence[Candidate] = ()) -> Figure:
    """One device's front: quality (accuracy in percent) against measured latency in milliseconds.

    The step line is what can be had at each latency. Whiskers are 95 % confidence intervals; of
    the latency on the front itself, of the test quality on its hollow markers. Dots are the other
    candidates of the search.
    """
    series = front_series(device, candidates)
    figure = _empty_figure(
        f"{series.device}: {series.setting}" if series.setting else series.device, [series]
    )
    _add_front(figure, series, COLORS[0], alone=True)
    return figure


def fronts_figure(
    result: JobResult, candidates: Mapping[str, Sequence[Candidate]] | None = None
) -> Figure:
    """All devices' fronts in one figure; `candidates` by the device's name. A click in the legend
    hides a device.
    """
    all_series = [
        front_series(device, (candidates or {}).get(device.name, ())) for device in result.devices
    ]
    label = metric_of(result.devices).label
    figure = _empty_figure(f"{label[0].upper()}{label[1:]} against latency", all_series)
    for index, series in enumerate(all_series):
        _add_front(figure, series, COLORS[index % len(COLORS)], alone=len(all_series) == 1)
    return figure


def write_html(figure: Figure, path: Path) -> Path:
    """Writes `figure` with all that it needs to be drawn, about 5 MB; returns `path`."""
    html = figure.to_html(
        include_plotlyjs=True, full_html=True, config={"displaylogo": False, "responsive": True}
    )
    write_atomically(path, html.encode())
    return path


def _empty_figure(title: str, all_series: Sequence[FrontSeries]) -> Figure:
    from plotly.graph_objects import Figure

    percentiles = sorted({series.percentile for series in all_series})
    axis = {
        "gridcolor": "#e5e7eb",
        "zeroline": False,
        "linecolor": "#9ca3af",
        "showline": True,
        "ticks": "outside",
    }
    figure = Figure()
    figure.update_layout(
        title={"text": title, "x": 0.02, "font": {"size": 18}},
        template="plotly_white",
        font={
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "size": 14,
            "color": "#1f2937",
        },
        hovermode="closest",
        hoverlabel={"align": "left", "bgcolor": "white"},
        legend={"groupclick": "toggleitem", "bgcolor": "rgba(255,255,255,0.8)"},
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        xaxis={
            **axis,
            "title": f"latency, {' / '.join(percentiles)} (ms)",
            "range": latency_range(all_series),
        },
        yaxis={
            **axis,
            "title": (all_series[0].metric if all_series else ACCURACY).axis,
            "range": quality_range(all_series),
        },
    )
    if not any(series.points for series in all_series):
        figure.add_annotation(
            text="no candidate was measured",
            showarrow=False,
            font={"size": 16},
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
        )
    return figure


def _add_front(figure: Figure, series: FrontSeries, color: str, *, alone: bool) -> None:
    from plotly.graph_objects import Scatter

    group = {
        "legendgroup": series.device,
        "legendgrouptitle": None if alone else {"text": series.device},
    }
    metric = series.metric
    hover = [_hover(point, series) for point in series.points]
    figure.add_trace(
        Scatter(
            x=series.other_latency_ms,
            y=series.other_quality,
            mode="markers",
            name="other candidates",
            **group,
            marker={"color": color, "opacity": 0.22, "size": 6},
            hovertemplate=f"%{{y:.{metric.decimals}f}} {metric.unit} at %{{x:.3g}} ms "
            "(predicted where not measured)<extra></extra>",
        )
    )
    figure.add_trace(
        Scatter(
            x=series.latency_ms,
            y=series.test_quality,
            mode="markers",
            name=f"test {metric.label}",
            **group,
            marker={
                "color": "white",
                "size": 8,
                "symbol": "diamond",
                "line": {"color": color, "width": 1.5},
            },
            error_y=_whiskers(series.test_quality, series.test_quality_ci, color, 0.35),
            opacity=0.75,
            hovertext=hover,
            hoverinfo="text",
            visible=True if alone else "legendonly",
        )
    )
    figure.add_trace(
        Scatter(
            x=series.latency_ms,
            y=series.quality,
            mode="lines+markers",
            name=f"front (validation {metric.label})",
            **group,
            line={"color": color, "width": 2.5, "shape": "hv"},
            marker={"color": color, "size": 9},
            error_x=_whiskers(series.latency_ms, series.latency_ci_ms, color, 0.7),
            hovertext=hover,
            hoverinfo="text",
        )
    )
    if series.recommended is not None:
        point = series.recommended
        figure.add_trace(
            Scatter(
                x=[series.latency_ms[point]],
                y=[series.quality[point]],
                mode="markers",
                name="recommended",
                **group,
                marker={
                    "color": "#facc15",
                    "size": 18,
                    "symbol": "star",
                    "line": {"color": color, "width": 2},
                },
                hovertext=[hover[point]],
                hoverinfo="text",
            )
        )
    if series.bound_ms is not None:
        label = (
            f"bound {series.bound_ms:g} ms"
            if alone
            else f"{series.device}: bound {series.bound_ms:g} ms"
        )
        figure.add_vline(
            x=series.bound_ms,
            line={"color": color, "width": 1.5, "dash": "dash"},
            annotation={"text": label, "textangle": -90, "font": {"color": color, "size": 12}},
            annotation_position="bottom left",
        )


def _whiskers(
    values: Sequence[float], intervals: Sequence[tuple[float, float]], color: str, opacity: float
) -> dict[str, Any]:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "data",
        "symmetric": False,
        "array": [
            max(0.0, high - value) for value, (_, high) in zip(values, intervals, strict=True)
        ],
        "arrayminus": [
            max(0.0, value - low) for value, (low, _) in zip(values, intervals, strict=True)
        ],
        "color": f"rgba({red},{green},{blue},{opacity})",
        "thickness": 1.3,
        "width": 4,
    }


def _hover(point: FrontPoint, series: FrontSeries) -> str:
    latency, metric = point.latency_ms, series.metric
    low, high = (metric.number(bound) for bound in point.test_quality_ci)
    widths = [f"{name} {size}" for name, size in point.widths.items()]
    rows = [", ".join(widths[i : i + 4]) for i in range(0, min(len(widths), MAX_WIDTHS_SHOWN), 4)]
    if len(widths) > MAX_WIDTHS_SHOWN:
        rows.append(f"and {len(widths) - MAX_WIDTHS_SHOWN} more groups")
    lines = [
        f"<b>{series.device} · {point.id}</b>",
        f"latency {series.percentile} <b>{latency.at_percentile:.4g} ms</b> "
        f"(95 % CI {latency.ci[0]:.4g} to {latency.ci[1]:.4g})",
        f"p50 {latency.p50:.4g}, p95 {latency.p95:.4g}, p99 {latency.p99:.4g} ms, "
        f"{latency.num_samples} runs",
        f"validation {metric.label} <b>{metric.text(point.quality)}</b>",
        f"test {metric.label} {metric.text(point.test_quality)} (95 % CI {low} to {high})",
        f"{point.precision}, {short_count(point.params)} parameters, {short_count(point.macs)} "
        f"MACs, "
        f"{short_count(point.size_bytes)}B",
        "widths: " + "<br>".join(rows),
    ]
    return "<br>".join(lines)
