"""Style of all charts: fonts, grids, colors, rows as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

    Layers = alt.LayerChart | alt.FacetChart

INK, FAINT, GRID, PALE = "#1f2937", "#6b7280", "#e5e7eb", "#f3f4f6"


def styled(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """The chart with the fonts, grids and colors that all charts share."""
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return (
        chart.configure(font=font, background="white", padding=12)
        .configure_view(stroke=None)
        .configure_axis(
            gridColor=GRID,
            domainColor="#9ca3af",
            tickColor="#9ca3af",
            labelColor=FAINT,
            titleColor=INK,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=12,
        )
        .configure_title(
            anchor="start",
            color=INK,
            fontSize=15,
            subtitleColor=FAINT,
            subtitleFontSize=11,
            offset=10,
        )
        .configure_legend(labelColor=INK, labelFontSize=11)
    )


def data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    import altair as alt

    return alt.InlineData(values=list(rows))


def empty_chart(
    title: alt.TitleParams, size: tuple[int, int], text: str = "no candidate was measured"
) -> Layers:
    import altair as alt

    label = alt.Chart(data([{"text": text}])).mark_text(fontSize=15, color=FAINT)
    return alt.layer(label.encode(text="text:N")).properties(
        title=title, width=size[0], height=size[1]
    )
