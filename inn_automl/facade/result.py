"""The result of a job as people work with it: tables, charts, the best model under a bound."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.errors import InputError, UnknownNameError
from inn_automl.core.result import DeviceResult, FrontPoint, JobResult, metric_of
from inn_automl.core.storage import read_json

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd


class Result:
    """The Pareto fronts of a finished job, one for each device.

    In a notebook a result shows its fronts as tables.

    Attributes:
        folder: the job's folder, with the bundles.
        record: every number of the job, as in `result.json`.

    Example:
        >>> from inn_automl import Result
        >>> result = Result.load("result")
        >>> result.metric
        'accuracy'
        >>> fastest = result.front("laptop-1-thread")[0]
        >>> result.best(device="laptop-1-thread").metric_value >= fastest.metric_value
        True
        >>> list(result.to_dataframe().columns)[:4]
        ['device', 'id', 'recommended', 'accuracy']
    """

    def __init__(self, folder: Path, record: JobResult) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Reads the result of a finished job.

        Args:
            folder: what `search(out=...)` or `inn-automl run --out` wrote.

        Raises:
            InputError: there is no finished job in the folder.
        """
        path = Path(folder) / "result.json"
        if not path.is_file():
            raise InputError(
                f"{str(folder)!r} holds no finished job (there is no result.json): give the folder "
                "of a job, or run it to its end."
            )
        return cls(Path(folder), JobResult.model_validate(read_json(path)))

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices, in the order of the budget."""
        return tuple(device.name for device in self.record.devices)

    @property
    def metric(self) -> str:
        """The name of the metric that fronts show, such as `accuracy`."""
        return metric_of(self.record.devices).name

    def front(self, device: str | None = None) -> tuple[FrontPoint, ...]:
        """The points of one device's front, fastest first.

        Args:
            device: its name; None where the job has one device only.

        Raises:
            UnknownNameError: the job has no such device.
            InputError: the job has several devices and none was named.
        """
        points = self._device(device).front
        return tuple(sorted(points, key=lambda point: point.latency_ms.at_percentile))

    def best(self, *, max_latency_ms: float | None = None, device: str | None = None) -> FrontPoint:
        """The point of the highest validation metric whose latency keeps a bound.

        A point keeps the bound if the upper end of its 95 % confidence interval does.

        Args:
            max_latency_ms: the bound in milliseconds, on the percentile of the device's budget;
                None for the bound of the budget, if it has one.
            device: as for `front`.

        Raises:
            UnknownNameError, InputError: as `front`, or no point keeps the bound; the message
                names the fastest.
        """
        found = self._device(device)
        front = self.front(device)
        if max_latency_ms is None:
            max_latency_ms = found.budget.get("max_latency_ms")
        able = [p for p in front if max_latency_ms is None or p.latency_ms.ci[1] <= max_latency_ms]
        if not able:
            fastest = (
                f": its fastest takes up to {front[0].latency_ms.ci[1]:.4g} ms" if front else ""
            )
            raise InputError(
                f"no model of device {found.name!r} keeps {max_latency_ms:g} ms{fastest}. Give a "
                "larger max_latency_ms, or run a search with a smaller model."
                if max_latency_ms is not None
                else f"device {found.name!r} has no front: {found.recommendation}"
            )
        return max(able, key=lambda point: point.metric_value)

    def bundle(self, point: FrontPoint) -> Path:
        """The bundle of a front point: ONNX model, weights and evidence in one ZIP archive."""
        return self.folder / point.bundle

    def to_dataframe(self) -> pd.DataFrame:
        """All fronts as one table: a row for each point, fastest first within each device.

        Latencies are in milliseconds, the metric is as stored (accuracy as a fraction), sizes are
        in bytes. `widths` holds a dict of channels by coupled group.
        """
        import pandas as pd

        rows = [
            _row(device, point, self.metric)
            for device in self.record.devices
            for point in self.front(device.name)
        ]
        return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["device", "id"])

    def plot(self, device: str | None = None) -> alt.TopLevelMixin:
        """Draws the fronts: all devices on the same axes, or one with its intervals.

        Returns:
            An Altair chart. A notebook shows it; `chart.save("front.png")` writes it.

        Raises:
            UnknownNameError: the job has no such device.
        """
        from inn_automl.reporting.charts import front_chart, fronts_chart, styled
        from inn_automl.reporting.series import front_series

        if device is None and len(self.record.devices) > 1:
            return styled(fronts_chart([front_series(each) for each in self.record.devices]))
        return styled(front_chart(front_series(self._device(device))))

    def _device(self, name: str | None) -> DeviceResult:
        devices = self.record.devices
        if name is None:
            if len(devices) != 1:
                raise InputError(
                    f"the job has {len(devices)} devices: name one of {', '.join(self.devices)}."
                )
            return devices[0]
        found = next((device for device in devices if device.name == name), None)
        if found is None:
            raise UnknownNameError("device", name, self.devices)
        return found

    def __repr__(self) -> str:
        sizes = ", ".join(f"{d.name}: {len(d.front)} points" for d in self.record.devices)
        return f"Result({str(self.folder)!r}, {sizes})"

    def _repr_html_(self) -> str:
        metric = metric_of(self.record.devices)
        parts = []
        for device in self.record.devices:
            parts.append(f"<h4>{escape(device.name)}</h4><p>{escape(device.recommendation)}</p>")
            header = ("", "id", metric.axis, f"test {metric.axis}", "latency (ms)", "95 % CI")
            rows = [
                (
                    "★" if point.id == device.recommended else "",
                    point.id,
                    metric.number(point.metric_value),
                    metric.number(point.test_metric_value),
                    f"{point.latency_ms.at_percentile:.4g}",
                    f"{point.latency_ms.ci[0]:.4g} to {point.latency_ms.ci[1]:.4g}",
                )
                for point in self.front(device.name)
            ]
            parts.append(_html_table(header, rows))
        return "".join(parts)


def _row(device: DeviceResult, point: FrontPoint, metric: str) -> dict[str, Any]:
    latency = point.latency_ms
    return {
        "device": device.name,
        "id": point.id,
        "recommended": point.id == device.recommended,
        metric: point.metric_value,
        f"test_{metric}": point.test_metric_value,
        "latency_ms": latency.at_percentile,
        "latency_ci_low_ms": latency.ci[0],
        "latency_ci_high_ms": latency.ci[1],
        "latency_p50_ms": latency.p50,
        "precision": point.precision,
        "params": point.params,
        "macs": point.macs,
        "size_bytes": point.size_bytes,
        "widths": dict(point.widths),
        "bundle": point.bundle,
    }


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"
