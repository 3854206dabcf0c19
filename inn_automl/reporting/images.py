"""Figures as PNG: fronts for reports and README files, and learning curves.

Drawn on matplotlib's object interface alone, so that nothing of a caller's own plotting state is
touched.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.metric import ACCURACY, Metric
from inn_automl.core.result import Candidate, DeviceResult, JobResult
from inn_automl.core.storage import write_atomically
from inn_automl.reporting.placement import along_steps, free_spot
from inn_automl.reporting.series import (
    COLORS,
    FrontSeries,
    Range,
    front_series,
    latency_range,
    quality_range,
    short_count,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
DPI = 160
LABEL_SIZE = (0.34, 0.22)
"""Of the recommended point's label with its margin, in shares of a panel."""


def write_front(device: DeviceResult, path: Path, candidates: Sequence[Candidate] = ()) -> Path:
    """Writes one device's front as PNG: quality (accuracy in %) against measured latency in ms;
    returns `path`.
    """
    return _write_fronts([front_series(device, candidates)], path)


def write_fronts(
    result: JobResult, path: Path, candidates: Mapping[str, Sequence[Candidate]] | None = None
) -> Path:
    """Writes all devices' fronts side by side on one axis of quality; `candidates` by the device's
    name.
    """
    return _write_fronts(
        [front_series(d, (candidates or {}).get(d.name, ())) for d in result.devices], path
    )


def write_learning_curves(
    history: Sequence[Mapping[str, Any]], path: Path, metric: Metric = ACCURACY
) -> Path:
    """Writes validation quality and training loss by epoch as PNG; returns `path`.

    Args:
        history: one mapping an epoch, with `epoch` (1-based), `train_loss` and `quality` (by name
            of widths; an epoch may lack some).
        metric: what qualities are in.
    """
    figure = new_figure(8.0, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    names = list(history[-1]["quality"]) if history else []
    for name, color in zip(names, COLORS, strict=False):
        with_name = [entry for entry in history if name in entry["quality"]]
        values = [metric.shown(entry["quality"][name]) for entry in with_name]
        marker = "o" if len(values) == 1 else None
        left.plot(
            [entry["epoch"] for entry in with_name], values, color=color, linewidth=2, marker=marker
        )
    if epochs:
        _label_ends(
            left, epochs[-1], [(name, metric.shown(history[-1]["quality"][name])) for name in names]
        )
    right.plot(
        epochs,
        [entry["train_loss"] for entry in history],
        color=INK,
        linewidth=2,
        marker="o" if len(epochs) == 1 else None,
    )
    for axes, title in ((left, f"validation {metric.axis}"), (right, "training loss")):
        style_axes(axes)
        axes.set_title(title, loc="left", fontsize=10.5, color=INK)
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return save_image(figure, path)


def _write_fronts(all_series: Sequence[FrontSeries], path: Path) -> Path:
    columns = min(len(all_series), 3)
    rows = -(-len(all_series) // columns)
    figure = new_figure(6.6 if columns == 1 else 4.9 * columns, 4.4 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    qualities = quality_range(all_series)
    for index, axes in enumerate(grid.flat):
        if index >= len(all_series):
            axes.set_axis_off()
            continue
        style_axes(axes)
        axes.set_ylim(*qualities)
        if index % columns == 0:
            axes.set_ylabel(all_series[0].metric.axis, color=INK)
        series = all_series[index]
        _draw_front(axes, series, COLORS[index % len(COLORS)], qualities, latency_range([series]))
    label = (all_series[0].metric if all_series else ACCURACY).label
    _add_legend(figure, label, with_others=any(series.other_quality for series in all_series))
    return save_image(figure, path)


def _draw_front(
    axes: Axes, series: FrontSeries, color: str, qualities: Range, latencies: Range
) -> None:
    axes.set_title(series.device, loc="left", fontsize=12, fontweight="bold", color=INK, pad=20)
    axes.text(
        0, 1.02, series.setting, transform=axes.transAxes, fontsize=8.5, color=FAINT, va="bottom"
    )
    axes.set_xlabel(f"latency, {series.percentile} (ms)", color=INK)
    if not series.points:
        axes.text(
            0.5,
            0.5,
            "no candidate was measured",
            transform=axes.transAxes,
            ha="center",
            color=FAINT,
        )
        return
    start, end = latencies
    bound = series.bound_ms
    axes.set_xlim(start, end)

    seen = [
        (x, y)
        for x, y in zip(series.other_latency_ms, series.other_quality, strict=True)
        if x <= end
    ]
    axes.scatter(
        [x for x, _ in seen],
        [y for _, y in seen],
        s=11,
        color=color,
        alpha=0.2,
        linewidths=0,
        zorder=2,
    )
    axes.errorbar(
        series.latency_ms,
        series.test_quality,
        yerr=_distances(series.test_quality, series.test_quality_ci),
        fmt="D",
        markersize=3.6,
        markerfacecolor="white",
        markeredgecolor=FAINT,
        markeredgewidth=0.9,
        ecolor="#d1d5db",
        elinewidth=0.9,
        zorder=3,
    )
    axes.step(
        [*series.latency_ms, end],
        [*series.quality, series.quality[-1]],
        where="post",
        color=color,
        linewidth=2.0,
        zorder=4,
    )
    axes.errorbar(
        series.latency_ms,
        series.quality,
        xerr=_distances(series.latency_ms, series.latency_ci_ms),
        fmt="o",
        markersize=5.5,
        color=color,
        markeredgecolor="white",
        markeredgewidth=0.8,
        elinewidth=1.3,
        capsize=2.2,
        zorder=5,
    )
    if bound is not None:
        _draw_bound(axes, bound, latencies, series.percentile)
    if series.recommended is not None:
        _label_recommended(axes, series, color, qualities, latencies)


def _add_legend(figure: Figure, quality: str, *, with_others: bool) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D(
            [],
            [],
            color=INK,
            linewidth=2,
            marker="o",
            markersize=5.5,
            markeredgecolor="white",
            label=f"front: validation {quality} (whiskers: 95 % CI of the latency)",
        ),
        Line2D(
            [],
            [],
            color="#d1d5db",
            linewidth=1,
            marker="D",
            markersize=3.8,
            markerfacecolor="white",
            markeredgecolor=FAINT,
            label=f"test {quality}, 95 % CI",
        ),
    ]
    if with_others:
        entries.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="o",
                markersize=4,
                color=INK,
                alpha=0.25,
                markeredgewidth=0,
                label="other candidates",
            )
        )
    columns = len(entries) if figure.get_figwidth() > 9 else 1 + with_others
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=8.3,
        frameon=False,
        labelcolor=INK,
    )


def _draw_bound(axes: Axes, bound: float, latencies: Range, percentile: str) -> None:
    start, end = latencies
    text, x = f" {percentile} ≤ {bound:g} ms ", bound
    if bound > end:
        text, x = f" bound {bound:g} ms → ", end
    else:
        axes.axvline(bound, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=3)
        axes.axvspan(bound, end, color="#f3f4f6", zorder=0)
    # Low, where there is nothing but candidates that others beat.
    side = "right" if x > (start + end) / 2 else "left"
    place = axes.get_xaxis_transform()
    axes.text(
        x, 0.015, text, transform=place, fontsize=8.5, color=INK, va="bottom", ha=side, zorder=6
    )


def _label_recommended(
    axes: Axes, series: FrontSeries, color: str, qualities: Range, latencies: Range
) -> None:
    index, metric = series.recommended or 0, series.metric
    point, x, y = series.points[index], series.latency_ms[index], series.quality[index]
    axes.plot(
        [x],
        [y],
        marker="*",
        markersize=17,
        color="#facc15",
        markeredgecolor=color,
        markeredgewidth=1.3,
        zorder=7,
    )

    def shares(latencies_ms: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
        (left, right), (floor, ceiling) = latencies, qualities
        return [
            ((a - left) / (right - left), (b - floor) / (ceiling - floor))
            for a, b in zip(latencies_ms, values, strict=True)
        ]

    front = shares(series.latency_ms, series.quality)
    obstacles = [(*spot, 3.0) for spot in along_steps([*front, (1.0, front[-1][1])])]
    obstacles += [(*spot, 2.0) for spot in shares(series.latency_ms, series.test_quality)]
    obstacles += [(*spot, 0.3) for spot in shares(series.other_latency_ms, series.other_quality)]
    obstacles += [(share / 20, 0.03, 2.0) for share in range(21)]
    axes.annotate(
        f"recommended\n{metric.brief(point.quality)} · {x:.3g} ms\n{short_count(point.params)} "
        f"parameters",
        xy=(x, y),
        xytext=free_spot(LABEL_SIZE, front[index], obstacles),
        textcoords="axes fraction",
        ha="center",
        va="center",
        fontsize=8.8,
        color=INK,
        zorder=8,
        bbox={
            "boxstyle": "round,pad=0.4",
            "facecolor": "white",
            "edgecolor": color,
            "linewidth": 1.0,
        },
        arrowprops={"arrowstyle": "-", "color": color, "linewidth": 1.0, "shrinkB": 7},
    )


def _distances(
    values: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> list[list[float]]:
    """Distances below and above each value, never negative."""
    return [
        [max(0.0, value - low) for value, (low, _) in zip(values, intervals, strict=True)],
        [max(0.0, high - value) for value, (_, high) in zip(values, intervals, strict=True)],
    ]


def _label_ends(axes: Axes, x: float, ends: Sequence[tuple[str, float]]) -> None:
    """Names each line at its right end, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap, previous = 0.055 * (high - low), float("inf")
    colors = {name: color for (name, _), color in zip(ends, COLORS, strict=False)}
    for _, (name, y) in sorted(enumerate(ends), key=lambda end: (end[1][1], end[0]), reverse=True):
        previous = min(y, previous - gap)
        axes.annotate(
            f"{name} {y:.1f}",
            (x, previous),
            xytext=(6, 0),
            textcoords="offset points",
            fontsize=8.8,
            color=colors[name],
            va="center",
            annotation_clip=False,
        )


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(colors=FAINT, labelsize=9)


def save_image(figure: Figure, path: Path) -> Path:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    write_atomically(path, drawn.getvalue())
    return path
