"""Accuracy over the share of all channels: lines with bands, as several benchmarks draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inn_automl.reporting.images import INK, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curve(
    axes: Axes,
    ratios: Sequence[float],
    bounds: Sequence[tuple[float, float, float]],
    *,
    label: str,
    color: str,
    linestyle: str = "-",
    linewidth: float = 1.8,
) -> None:
    """One line with its band.

    Args:
        bounds: low, middle and high at each ratio; nothing is shaded where all are the same.
    """
    lows, middles, highs = zip(*bounds, strict=True)
    axes.fill_between(ratios, lows, highs, color=color, alpha=0.12, linewidth=0)
    axes.plot(
        ratios,
        middles,
        color=color,
        marker="o",
        markersize=4,
        linestyle=linestyle,
        linewidth=linewidth,
        label=label,
    )


def style_widths(axes: Axes, ratios: Sequence[float], title: str) -> None:
    """Title and ticks of a panel whose horizontal axis is the share of all channels."""
    style_axes(axes)
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel("share of all channels", color=INK)
    axes.set_xticks(list(ratios), [f"{ratio:g}" for ratio in ratios])
