"""The figure of a report: test accuracy over the share of all channels, one panel a task, one line
an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from inn_automl.reporting.images import FAINT, INK, new_figure, save_image

from benchmarks.curves import draw_curve, style_widths
from benchmarks.intervals import mean_interval
from benchmarks.quality.arms import ARMS, RATIOS
from inn_automl.reporting.series import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A colour a kind of method, a stroke an arm.
STYLES = {
    "ours": (COLORS[0], "-"),
    "converted": (COLORS[0], "--"),
    "usnet": (COLORS[1], "-"),
    "usnet-by-layer": (COLORS[1], "--"),
    "separate": (INK, "-"),
    "paper": (COLORS[3], ":"),
    "paper-x4": (COLORS[3], "--"),
    "torchintegral": (COLORS[3], "-"),
    "pruned": (COLORS[2], ":"),
    "pruned-tuned": (COLORS[2], "-"),
    "torch-pruning": (COLORS[2], "--"),
}
TICKS = (10, 30, 50, 70, 80, 90, 95, 97, 98, 99, 99.5)
FINE_TICKS = (60, 75, 85, 88, 92, 94, 96)
HIGHEST = 99.9
"""%; the axis is logarithmic in the share of errors, which has no place for 0."""

Curves = Mapping[str, Sequence[Sequence[float]]]
"""By arm and seed: test accuracy in % at each of `RATIOS`."""


def draw(by_task: Mapping[str, Curves], path: Path) -> Path:
    """Writes the PNG: means of seeds, with their 95 % intervals as bands; returns `path`."""
    columns = min(len(by_task), 3)
    rows = -(-len(by_task) // columns)
    figure = new_figure(max(6.4, 4.7 * columns), 3.9 * rows + 0.5)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (task, curves) in zip(panels, by_task.items(), strict=False):
        _draw_task(axes, task, curves)
    for axes in panels[len(by_task) :]:
        axes.set_axis_off()
    labelled = {
        label: line
        for axes in panels
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    arms = [arm for arm in ARMS if arm in labelled]
    figure.legend(
        [labelled[arm] for arm in arms],
        arms,
        loc="outside lower center",
        ncols=min(len(arms), 2 * columns + 1),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
        handlelength=3,
    )
    return save_image(figure, path)


def _draw_task(axes: Axes, task: str, curves: Curves) -> None:
    lowest, highest = 100.0, 0.0
    for arm, seeds in curves.items():
        intervals = [mean_interval([seed[i] for seed in seeds]) for i in range(len(RATIOS))]
        bounds = [
            (max(0.0, one.low), min(HIGHEST, one.mean), min(HIGHEST, one.high)) for one in intervals
        ]
        color, linestyle = STYLES.get(arm, (FAINT, "-"))
        width = 2.6 if arm == "ours" else 1.5
        draw_curve(
            axes, RATIOS, bounds, label=arm, color=color, linestyle=linestyle, linewidth=width
        )
        lowest = min(lowest, *(middle for _, middle, _ in bounds))
        highest = max(highest, *(middle for _, middle, _ in bounds))
    axes.set_yscale("function", functions=(_from_accuracy, _to_accuracy))
    # By the means: the interval of two seeds would leave no room for anything else.
    axes.set_ylim(max(0.0, 100 - 1.2 * (100 - lowest)), min(HIGHEST, 100 - 0.6 * (100 - highest)))
    low, high = axes.get_ylim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    if len(ticks) < 4:
        ticks += [tick for tick in FINE_TICKS if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    style_widths(axes, RATIOS, f"{task}: test accuracy (%)")


def _from_accuracy(percent: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(100 - np.asarray(percent), 100 - HIGHEST))


def _to_accuracy(place: np.ndarray) -> np.ndarray:
    return 100 - 10.0 ** -np.asarray(place)
