"""The command over a pipeline that is replaced."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from inn_automl.cli import plugins
from inn_automl.cli.main import main
from inn_automl.core.progress import Progress
from inn_automl.core.result import (
    CostModelErrors,
    DeviceResult,
    FrontPoint,
    JobResult,
    LatencySummary,
)
from inn_automl.core.spec import JobSpec
from inn_automl.facade import backends
from inn_automl.latency.benchmark import Measure
from inn_automl.latency.store import MeasurementCache

BUDGET = "devices: [{name: laptop, max_latency_ms: 2.0}]\ntraining: {cpus: 2, gpus: 1}\n"


def point(
    identifier: str, latency_ms: float, accuracy: float, percentile: float = 95.0
) -> FrontPoint:
    return FrontPoint(
        id=identifier,
        widths={"conv1": 8},
        metric_value=accuracy,
        test_metric_value=accuracy - 0.01,
        test_metric_value_ci=(accuracy - 0.02, accuracy),
        latency_ms=LatencySummary(
            p50=0.9 * latency_ms,
            p95=latency_ms,
            p99=1.5 * latency_ms,
            ci=(0.95 * latency_ms, 1.05 * latency_ms),
            percentile=percentile,
            at_percentile=latency_ms,
            num_samples=1000,
        ),
        params=45_300,
        macs=1_230_000,
        size_bytes=181_000,
        bundle=f"bundles/{identifier}.zip",
    )


def result(front: list[FrontPoint], recommended: str | None, sentence: str) -> JobResult:
    device = DeviceResult(
        name="laptop",
        recommended=recommended,
        recommendation=sentence,
        cost_model_errors=CostModelErrors(
            median_relative=0.03, p90_relative=0.07, spearman=0.99, num_fitted=30, num_held_out=8
        ),
        hypervolume=[1.0],
        reference_point=(3.0, 0.1),
        search_stopped="its budget of 200 evaluations",
        environment={},
        budget={
            "name": "laptop",
            "runtime": "onnxruntime-cpu",
            "threads": 1,
            "max_latency_ms": 2.0,
        },
        front=front,
    )
    return JobResult(job={}, devices=[device])


RESULT = result(
    [point("p0", 0.4, 0.91), point("p1", 1.6, 0.97)], "p1", "p1 is the most accurate within 2 ms."
)


class FakeBackend:
    made: list[FakeBackend]

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.closed = arguments, False
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
        FakeBackend.made.append(self)

    def close(self) -> None:
        self.closed = True


Job = Callable[[JobSpec, Path, Progress], JobResult]


class Terminal:
    """Runs the command with a job of the test's in the pipeline's place."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.jobs: list[JobSpec] = []
        (folder / "budget.yaml").write_text(BUDGET, encoding="utf-8")
        monkeypatch.chdir(folder)
        FakeBackend.made = []
        groups = {"inn_automl.backends": {"ray": "made:RayBackend", "local": "made:FakeBackend"}}
        monkeypatch.setitem(
            sys.modules,
            "made",
            types.SimpleNamespace(FakeBackend=FakeBackend, RayBackend=FakeBackend),
        )
        self.register(groups)
        self.job(lambda spec, out, progress: RESULT)

    def register(self, groups: dict[str, dict[str, str]]) -> None:
        all_points = EntryPoints(
            EntryPoint(name, value, group)
            for group, names in groups.items()
            for name, value in names.items()
        )
        for module in (plugins, backends):
            self._monkeypatch.setattr(module, "entry_points", all_points.select)

    def job(self, job: Job) -> None:
        def run_job(
            spec: JobSpec,
            out: Path,
            *,
            backend: FakeBackend,
            progress: Progress,
            measurement_cache: MeasurementCache,
            measure: Measure,
        ) -> JobResult:
            assert not backend.closed and isinstance(measurement_cache, MeasurementCache)
            self.jobs.append(spec)
            return job(spec, out, progress)

        self._monkeypatch.setitem(
            sys.modules, "inn_automl.pipeline.run", types.SimpleNamespace(run_job=run_job)
        )

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = self._capsys.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), printed.out, printed.err

    def run(self, *more: str, **changes: str) -> tuple[int, str, str]:
        options = {"dataset": "digits", "budget": "budget.yaml", "out": "out", **changes}
        return self(
            "run", *(part for key, value in options.items() for part in (f"--{key}", value)), *more
        )


def one_sentence(text: str) -> bool:
    return text.startswith("inn-automl: ") and text.count("\n") == 1 and text.endswith(".\n")


def after_progress(text: str) -> str:
    """What was said after the progress display had ended."""
    lines = text.splitlines(keepends=True)
    return "".join(
        lines[next(i for i, line in enumerate(lines) if line.startswith("inn-automl: ")) :]
    )
