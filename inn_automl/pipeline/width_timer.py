"""Latency of widths on one device: each is exported as ONNX and measured there.

DIR/search/onnx/    the exported files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inn_automl.core.precision import DEFAULT
from inn_automl.core.spec import DeviceBudget
from inn_automl.evaluation.onnx_precision import convert_file
from inn_automl.export import OnnxTemplate
from inn_automl.integral import IntegralNetwork, Widths
from inn_automl.latency import drift
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.latency.records import LatencyRow
from inn_automl.pipeline.context import JobContext

Template = Callable[[], OnnxTemplate]
"""Makes the exporter when it is needed."""


@dataclass(frozen=True)
class TimedWidths:
    """Widths that were measured together."""

    rows: list[LatencyRow]
    environment: Mapping[str, Any]
    """What they were measured on."""


@dataclass(frozen=True)
class WidthTimer:
    """Measures widths of a network on one device in one precision.

    Methods raise MeasurementError where the device cannot be measured, and ExportError or
    StorageError where a model cannot be exported or a file not be written.
    """

    job: JobContext
    network: IntegralNetwork
    device: DeviceBudget
    precision: str
    template: Template

    @property
    def key(self) -> str:
        """Names device and precision in the names of files."""
        # A plus sign, because no device has one in its name.
        suffix = "" if self.precision == DEFAULT else f"+{self.precision}"
        return f"{self.device.name}{suffix}"

    @property
    def label(self) -> str:
        """Names device and precision in notes."""
        suffix = "" if self.device.precisions == (DEFAULT,) else f", {self.precision}"
        return f"{self.device.name}{suffix}"

    def measure(
        self, widths: Sequence[Widths], config: BenchmarkConfig, *, shows_progress: bool = False
    ) -> TimedWidths:
        """Measures widths together.

        Args:
            shows_progress: as the progress of the running stage.
        """
        progress, models = self.job.progress, {}
        for position, one in enumerate(widths):
            if shows_progress:
                progress.update(0.5 * position / len(widths), detail=f"{self.label}: exporting")
            models[str(position)] = self.export(one)

        def show(fraction: float) -> None:
            progress.update(0.5 + 0.5 * fraction, detail=f"{self.label}: measuring")

        found = self.job.measure(
            models, self.device, config=config, on_progress=show if shows_progress else None
        )
        environment = next(iter(found.values())).environment
        rows = [
            LatencyRow(
                widths=dict(one),
                latency_ms=found[key].summary.at_percentile,
                size_bytes=models[key].stat().st_size,
                reference_ms=environment.get("reference_ms"),
            )
            for key, one in zip(models, widths, strict=True)
        ]
        return TimedWidths(rows, environment)

    def measure_beside(
        self,
        references: Sequence[LatencyRow],
        widths: Sequence[Widths],
        config: BenchmarkConfig,
        *,
        shows_progress: bool = False,
    ) -> tuple[list[LatencyRow], float]:
        """Measures widths together with reference configurations, which were measured before.

        Returns:
            Rows of the widths as if measured when the reference configurations were, and the factor
            by which these take longer now.
        """
        together = [*(row.widths for row in references), *widths]
        rows = self.measure(together, config, shows_progress=shows_progress).rows
        again, new = rows[: len(references)], rows[len(references) :]
        factor = drift.measured_factor(again, references)
        return [replace(row, latency_ms=row.latency_ms / factor) for row in new], factor

    def export(self, widths: Widths) -> Path:
        """Exports widths for timing.

        Batch-norm statistics are not recalibrated: they change no operation.
        """
        channels = "-".join(str(widths[group.name]) for group in self.network.groups)
        name = f"search/onnx/{channels}"
        path = self.job.folder / f"{name}.onnx"
        if not self.job.reuse_from_parent(f"{name}.onnx"):
            self.template().export(self.network.discretize(widths).eval(), path, widths=widths)
        if self.precision != DEFAULT:
            source, path = path, self.job.folder / f"{name}.{self.precision}.onnx"
            if not self.job.reuse_from_parent(f"{name}.{self.precision}.onnx"):
                convert_file(source, path, self.precision, self.job.task.dataset)
        return path
