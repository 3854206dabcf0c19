"""What a front stands on as PNG: the predictor's parity plot, and the latency of a model's layers."""

from __future__ import annotations

from pathlib import Path

from inn_automl.reporting.evidence import LayerSeries, ParitySeries
from inn_automl.reporting.images import FAINT, INK, new_figure, save_image, style_axes
from inn_automl.reporting.series import COLORS

HELD_OUT, FINALIST = COLORS[0], COLORS[1]


def write_parity(series: ParitySeries, path: Path) -> Path:
    """Writes measured against predicted latency, with the line of equality, as PNG; returns
    `path`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = new_figure(5.6, 5.4)
    axes = figure.subplots()
    style_axes(axes)
    axes.set_title(
        f"{series.device}: predicted latency",
        loc="left",
        fontsize=12,
        fontweight="bold",
        color=INK,
        pad=20,
    )
    axes.text(
        0, 1.02, series.summary, transform=axes.transAxes, fontsize=8, color=FAINT, va="bottom"
    )
    axes.set_xlabel(f"measured latency, {series.percentile} (ms)", color=INK)
    axes.set_ylabel(f"predicted latency, {series.percentile} (ms)", color=INK)
    if series.range is None:
        axes.text(
            0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", color=FAINT
        )
        return save_image(figure, path)
    axes.set(xscale="log", yscale="log", xlim=series.range, ylim=series.range, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
    low, high = series.range
    ends = [low, high]
    within = 1 + series.median_relative
    axes.fill_between(
        ends,
        [low / within, high / within],
        [low * within, high * within],
        color="#e5e7eb",
        linewidth=0,
        zorder=1,
        label="median error of the held-out",
    )
    axes.plot(
        ends,
        ends,
        color=INK,
        linewidth=1.1,
        linestyle=(0, (4, 3)),
        zorder=2,
        label="predicted = measured",
    )
    for pairs, marker, color, label in (
        (series.held_out, "o", HELD_OUT, "held-out widths of the calibration"),
        (series.finalists, "D", FINALIST, "finalists of the search"),
    ):
        if pairs:
            x, y = zip(*pairs, strict=True)
            axes.scatter(
                x,
                y,
                s=26,
                marker=marker,
                color=color,
                edgecolors="white",
                linewidths=0.6,
                zorder=3,
                label=label,
            )
    axes.legend(loc="upper left", fontsize=8.3, frameon=False, labelcolor=INK)
    return save_image(figure, path)


def write_layers(series: LayerSeries, path: Path) -> Path:
    """Writes what each layer of the recommended model takes, in milliseconds, as PNG; returns
    `path`.
    """
    figure = new_figure(6.6, 1.5 + 0.25 * len(series.names))
    axes = figure.subplots()
    style_axes(axes)
    axes.set_title(
        f"{series.device}: latency by layer",
        loc="left",
        fontsize=12,
        fontweight="bold",
        color=INK,
        pad=20,
    )
    caption = f"recommended point {series.point}; the runtime's own accounting, scaled to the measured p50"
    axes.annotate(
        caption,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=8,
        color=FAINT,
        in_layout=False,
    )
    places = range(len(series.names))
    axes.barh(places, series.ms, color=HELD_OUT, height=0.68, zorder=2)
    for place, ms, share in zip(places, series.ms, series.shares, strict=True):
        axes.annotate(
            f"{100 * share:.1f} %",
            (ms, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_yticks(places, series.names, fontsize=8.3)
    axes.set_ylim(len(series.names) - 0.4, -0.6)  # the first layer on top
    axes.set_xlim(0, 1.13 * max(series.ms))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("latency, p50 (ms)", color=INK)
    return save_image(figure, path)
