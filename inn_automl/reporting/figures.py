"""The figures of a job as files: PNG for reports, interactive HTML for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.result import Candidate, JobResult, metric_of
from inn_automl.core.storage import write_atomically
from inn_automl.reporting.charts import (
    front_chart,
    front_panels,
    fronts_chart,
    layers_chart,
    learning_curves_chart,
    parity_chart,
    styled,
)
from inn_automl.reporting.evidence import layer_series, parity_series
from inn_automl.reporting.page import device_classes, write_devices_page, write_html
from inn_automl.reporting.series import COLORS, front_series

if TYPE_CHECKING:
    import altair as alt

SCALE = 2.0
"""Pixels of a PNG for each pixel of its chart."""


def write_figures(
    result: JobResult,
    folder: Path,
    candidates: Mapping[str, Sequence[Candidate]] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes every figure of a job into `folder`, which it returns.

    | file | what it shows |
    |---|---|
    | `fronts.html`, `fronts.png` | the fronts of all devices |
    | `devices.html` | each device's front, cost model and layers on one page |
    | `DEVICE/front.html`, `DEVICE/front.png` | one front |
    | `DEVICE/parity.png` | predicted against measured latency |
    | `DEVICE/layers.png` | latency by layer, where it is known |
    | `DEVICE/classes.png` | which classes the recommended model takes for which |
    | `learning_curves.png` | where there is a `history` |

    Args:
        result: the job.
        folder: made where it is missing.
        candidates: all that was evaluated for each device, by its name.
        history: one mapping an epoch of the training (see `learning_curves_chart`).
    """
    candidates = candidates or {}
    all_series = [front_series(d, candidates.get(d.name, ())) for d in result.devices]
    write_html(fronts_chart(all_series), folder / "fronts.html", title="Fronts")
    if all_series:
        write_png(front_panels(all_series), folder / "fronts.png")
    for index, (device, series) in enumerate(zip(result.devices, all_series, strict=True)):
        front = front_chart(series, COLORS[index % len(COLORS)])
        write_html(front, folder / device.name / "front.html", title=device.name)
        write_png(front, folder / device.name / "front.png")
        if parity := parity_series(device, candidates.get(device.name, ())):
            write_png(parity_chart(parity), folder / device.name / "parity.png")
        if layers := layer_series(device):
            write_png(layers_chart(layers), folder / device.name / "layers.png")
        if classes := device_classes(device):
            write_png(classes, folder / device.name / "classes.png")
    write_devices_page(result, candidates, folder / "devices.html")
    if history:
        curves = learning_curves_chart(history, metric_of(result.devices))
        write_png(curves, folder / "learning_curves.png")
    return folder


def write_png(chart: alt.TopLevelMixin, path: Path) -> Path:
    """Writes a chart as PNG; returns `path`."""
    import vl_convert

    png = vl_convert.vegalite_to_png(styled(chart).to_dict(validate=False), scale=SCALE)
    write_atomically(path, png)
    return path
