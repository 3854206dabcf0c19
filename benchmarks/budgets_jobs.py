"""Jobs whose recommendations `benchmarks.budgets_kept` measures again: five networks, eight
budgets each.

One job trains each network and finds the front without any bound; each of its extensions has a
bound somewhere on that front, so that a recommendation has to be found and to hold: on p50, p95 or
p99, on latency alone or with size, memory or MACs beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inn_automl.core.result import FrontPoint
from inn_automl.core.spec import JobSpec, parse
from inn_automl.pipeline.backend import LocalBackend
from inn_automl.pipeline.run import extend_job, run_job

NETWORKS = (
    ("mnist1d", "signal"),
    ("mnist5k", "convnet"),
    ("digits", "resnet"),
    ("digits", "mobilenet"),
    ("digits", "convnet"),
)
TRAINING = {"max_minutes": 0.75, "trials": 1}
SEARCH = {"max_evaluations": 60, "batch_size": 15, "patience": 2, "max_measurements": 44}
SHARES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Where on the way from the front's fastest point to its slowest the bound lies."""
PERCENTILES = (95, 50, 95, 99)
BESIDES: tuple[dict[str, float], ...] = (
    {},
    {},
    {"max_size_bytes": 1.1},
    {},
    {"max_macs": 1.1},
    {"max_memory_bytes": 1.2},
)
"""Bounds beside that on latency, as factors of what the point at the latency bound has."""


def make_jobs(folder: Path) -> list[Path]:
    """The folders of all jobs with a bound; those that are finished are not run again."""
    found = []
    for dataset, family in NETWORKS:
        base = folder / f"{dataset}-{family}"
        device: dict[str, Any] = {"name": "one-thread"}
        result = run_job(_spec(dataset, family, device), base, backend=LocalBackend(cpus=1))
        front = sorted(result.devices[0].front, key=lambda point: point.latency_ms.at_percentile)
        for number, share in enumerate(SHARES):
            index = len(found)
            bounded = {**device, **_bounds(front, share, index)}
            out = folder / f"{dataset}-{family}-{number}"
            extended = extend_job(
                _spec(dataset, family, bounded), base, out, backend=LocalBackend(cpus=1)
            )
            print(f"{out.name}: {extended.devices[0].recommendation}", file=sys.stderr, flush=True)
            found.append(out)
    return found


def _spec(dataset: str, family: str, device: dict[str, Any]) -> JobSpec:
    budget = {"devices": [device], "training": TRAINING, "search": SEARCH}
    return parse(
        JobSpec,
        {"dataset": dataset, "model": family, "budget": budget},
        where="a job of the benchmark",
    )


def _bounds(front: Sequence[FrontPoint], share: float, index: int) -> dict[str, Any]:
    """The bounds of one budget; `index` chooses percentile and what is bounded beside latency."""
    percentile = PERCENTILES[index % len(PERCENTILES)]
    key = f"p{percentile}"
    fastest, slowest = (float(getattr(point.latency_ms, key)) for point in (front[0], front[-1]))
    # A bound below the interval of the fastest point cannot be kept by anything, and a job says
    # so.
    bound_ms = max(fastest + share * (slowest - fastest), 1.1 * fastest)
    nearest = max(
        (point for point in front if getattr(point.latency_ms, key) <= bound_ms),
        key=lambda point: point.metric_value,
    )
    figures = {
        "max_size_bytes": nearest.size_bytes,
        "max_macs": nearest.macs,
        "max_memory_bytes": nearest.peak_memory_bytes or 0,
    }
    beside = {
        name: int(factor * figures[name])
        for name, factor in BESIDES[index % len(BESIDES)].items()
        if figures[name] > 0
    }
    return {"max_latency_ms": round(bound_ms, 5), "percentile": percentile, **beside}
