"""Pages of charts as single HTML files that need no internet, about 1 MB each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.result import Candidate, DeviceResult, JobResult
from inn_automl.core.storage import write_atomically
from inn_automl.reporting.charts import (
    confusion_chart,
    front_chart,
    layers_chart,
    parity_chart,
    styled,
)
from inn_automl.reporting.class_rows import class_rows, recommended_point
from inn_automl.reporting.evidence import layer_series, parity_series
from inn_automl.reporting.series import COLORS, front_series

if TYPE_CHECKING:
    import altair as alt
    from jinja2 import Environment

ENVIRONMENT_KEYS = (
    "cpu_model",
    "gpu",
    "num_cores",
    "runtime",
    "runtime_version",
    "threads",
    "batch_size",
    "governor",
    "turbo",
)
"""Keys of a device's environment that the page shows, in order."""


def write_html(chart: alt.TopLevelMixin, path: Path, *, title: str = "inn_automl") -> Path:
    """Writes one chart as an interactive page; returns `path`."""
    return _write("figure.html", path, title=title, specs=[styled(chart).to_dict(validate=False)])


def write_devices_page(
    result: JobResult, candidates: Mapping[str, Sequence[Candidate]], path: Path
) -> Path:
    """Writes all devices of a job on one page; returns `path`.

    Each section has the front, the parity of the cost model, the latency by layer, and the machine
    that it was measured on.

    Args:
        result: the job.
        candidates: all that was evaluated for each device, by its name.
        path: the file to write.
    """
    sections: list[dict[str, Any]] = []
    charts: list[alt.TopLevelMixin] = []
    for index, device in enumerate(result.devices):
        some = candidates.get(device.name, ())
        parity, layers = parity_series(device, some), layer_series(device)
        first = len(charts)
        charts.append(front_chart(front_series(device, some), COLORS[index % len(COLORS)]))
        charts += [parity_chart(parity)] if parity else []
        charts += [layers_chart(layers)] if layers else []
        classes = device_classes(device)
        charts += [classes] if classes else []
        known = [key for key in ENVIRONMENT_KEYS if device.environment.get(key)]
        sections.append(
            {
                "device": device.name,
                "recommendation": device.recommendation,
                "environment": ", ".join(
                    f"{key.replace('_', ' ')} {device.environment[key]}" for key in known
                ),
                "cost_model": f"Cost model, {parity.summary}" if parity else "",
                "charts": range(first, len(charts)),
                "classes": class_rows(device),
            }
        )
    specs = [styled(chart).to_dict(validate=False) for chart in charts]
    return _write("devices.html", path, title="Devices", sections=sections, specs=specs)


def device_classes(device: DeviceResult) -> alt.TopLevelMixin | None:
    """The chart of the recommended point's classes, if they are known and not too many."""
    point = recommended_point(device)
    if point is None or point.test_classes is None or not point.test_classes.confusion:
        return None
    return confusion_chart(point.test_classes, device.name, point.id)


def _write(template: str, path: Path, **values: Any) -> Path:
    from markupsafe import Markup

    html = _templates().get_template(template).render(vega=Markup(_vega()), **values)
    write_atomically(path, html.encode())
    return path


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("inn_automl.reporting")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`."""
    import altair as alt
    import vl_convert

    version = alt.SCHEMA_VERSION.rpartition(".")[0]
    return str(vl_convert.javascript_bundle(vl_version=version))  # type: ignore[call-arg]
