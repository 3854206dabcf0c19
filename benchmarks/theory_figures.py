"""The figures of docs/explanation/theory.md, drawn from what `theory` measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inn_automl.reporting.images import FAINT, INK, new_figure, save_image, style_axes

from benchmarks.curves import draw_curve, style_widths
from inn_automl.reporting.series import COLORS

ORDERS = ("as trained", "along a path")
SMALLEST = 8
"""Channels below which the errors of point samples leave the panel."""


def write(found: Mapping[str, Any], ratios: Sequence[float], folder: Path) -> None:
    """`theory-convergence.png`, `theory-aliasing.png` and `theory-accuracy-by-partition.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_convergence(found["quadrature"], found["interpolation"], folder / "theory-convergence.png")
    draw_aliasing(found["aliasing"], folder / "theory-aliasing.png")
    draw_accuracy(found["accuracy"], ratios, folder / "theory-accuracy-by-partition.png")


def draw_convergence(
    quadrature: Mapping[str, Mapping[int, float]],
    interpolation: Mapping[str, Mapping[int, float]],
    path: Path,
) -> None:
    """Errors against the number of points, on logarithmic axes, where an order is a slope."""
    figure = new_figure(9.6, 4.6)
    panels = figure.subplots(1, 2)
    titles = ("error of an integral layer", "largest error of an interpolated function")
    for axes, errors, title, what in zip(
        panels, (quadrature, interpolation), titles, ("samples n", "nodes m"), strict=True
    ):
        for (name, by_num), color in zip(errors.items(), COLORS, strict=False):
            drawn = {int(num): error for num, error in by_num.items() if error > 1e-15}
            axes.loglog(
                list(drawn),
                list(drawn.values()),
                color=color,
                marker="o",
                markersize=3.5,
                label=name,
            )
        style_axes(axes)
        axes.set_title(title, loc="left", fontsize=10.5, color=INK)
        axes.set_xlabel(what, color=INK)
        axes.set_xticks([4, 8, 16, 32, 64, 128, 256], ["4", "8", "16", "32", "64", "128", "256"])
        axes.minorticks_off()
        axes.legend(
            fontsize=8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(0, -0.15),
            ncols=2,
            labelcolor=INK,
        )
    save_image(figure, path)


def draw_aliasing(found: Mapping[str, Any], path: Path) -> None:
    """A channel function in both orders with samples of it; and what a layer's output loses at
    fewer samples.
    """
    figure = new_figure(9.6, 6.0)
    panels = figure.subplot_mosaic([[*ORDERS], ["error", "error"]])
    below = panels["error"]
    for order in ORDERS:
        axes = panels[order]
        values = found["function"][order]
        num, few = len(values), len(values) // 4
        axes.plot(
            range(num),
            values,
            color=FAINT,
            linewidth=1,
            marker=".",
            markersize=4,
            label=f"{num} channels",
        )
        places = [i * (num - 1) / (few - 1) for i in range(few)]
        axes.plot(
            places,
            [_linear(values, place) for place in places],
            color=COLORS[1],
            marker="o",
            markersize=4,
            linewidth=1.5,
            label=f"{few} point samples",
        )
        cells = [statistics.fmean(values[4 * i : 4 * i + 4]) for i in range(few)]
        edges = [4 * i - 0.5 for i in range(few + 1)]
        axes.stairs(
            cells,
            edges,
            color=COLORS[0],
            linewidth=1.8,
            baseline=None,
            label=f"{few} cell averages",
        )
        style_axes(axes)
        axes.set_title(
            f"weights of one output, channels {order}", loc="left", fontsize=10.5, color=INK
        )
        axes.set_xlabel("channel", color=INK)
    largest = 1.1 * max(abs(value) for order in ORDERS for value in found["function"][order])
    for order in ORDERS:
        panels[order].set_ylim(-largest, largest)
    figure.legend(
        *panels[ORDERS[0]].get_legend_handles_labels(),
        loc="outside upper right",
        ncols=3,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
    styles = {"point samples": COLORS[1], "cell averages": COLORS[0]}
    for name, errors in found["error"].items():
        kind, order = name.split(", ")
        drawn = {int(num): error for num, error in errors.items() if int(num) >= SMALLEST}
        below.plot(
            list(drawn),
            list(drawn.values()),
            color=styles[kind],
            linestyle="--" if order == ORDERS[0] else "-",
            marker="o",
            markersize=3.5,
            label=f"{kind}, channels {order}",
        )
    style_axes(below)
    below.set_title("relative error of the layer's output", loc="left", fontsize=10.5, color=INK)
    below.set_xlabel("channels n that it is sampled at", color=INK)
    below.set_ylim(bottom=0)
    below.legend(fontsize=8, frameon=False, labelcolor=INK)
    save_image(figure, path)


def _linear(values: Sequence[float], place: float) -> float:
    left = min(int(place), len(values) - 2)
    return values[left] + (place - left) * (values[left + 1] - values[left])


def draw_accuracy(runs: Sequence[Mapping[str, Any]], ratios: Sequence[float], path: Path) -> None:
    """Mean over seeds, with the range of seeds as a band."""
    figure = new_figure(7.6, 4.4)
    axes = figure.subplots()
    for name, color in zip(dict.fromkeys(run["partition"] for run in runs), COLORS, strict=False):
        by_seed = [run["accuracy"] for run in runs if run["partition"] == name]
        bounds = [(min(one), statistics.fmean(one), max(one)) for one in zip(*by_seed, strict=True)]
        draw_curve(axes, ratios, bounds, label=name, color=color)
    style_widths(axes, ratios, "test accuracy (%), one network a partition")
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, loc="lower right")
    save_image(figure, path)
