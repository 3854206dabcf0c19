"""Jobs of benchmarks on signals: the command `inn-automl run`, and what became of its network."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inn_automl import Result, discretize
from inn_automl.core.storage import read_json, write_json
from inn_automl.export.bundle import read_bundle
from inn_automl.tasks.classification import wilson

_BUDGET = """\
devices:
  - {{name: one-thread, threads: 1}}
training: {{max_minutes: {minutes:g}, cpus: 2}}
search: {{max_evaluations: {evaluations}}}
"""
MAX_EVALUATIONS = 100
"""Candidates that a search evaluates, at most."""


def run_job(
    dataset: Path,
    folder: Path,
    *,
    minutes: float,
    seed: int,
    ratios: Sequence[float],
    evaluations: int = MAX_EVALUATIONS,
    words: Sequence[str] = (),
) -> dict[str, Any]:
    """What a job found, from its file where an earlier call has left it.

    Args:
        folder: of the job.
        minutes: of training.
        ratios: of the widths at which its network is tested.
        evaluations: candidates that the search evaluates, at most.
        words: more of the command line.

    Raises:
        SystemExit: the job failed; with the end of its output.
    """
    kept = folder / "outcome.json"
    if kept.exists():
        found: dict[str, Any] = read_json(kept)
        return found
    folder.mkdir(parents=True, exist_ok=True)
    budget = folder / "budget.yaml"
    budget.write_text(_BUDGET.format(minutes=minutes, evaluations=evaluations), encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("inn-automl")), "run", "--backend", "local",
        "--dataset", str(dataset), "--budget", str(budget), "--out", str(folder / "job"),
        "--seed", str(seed), *words,
    ]  # fmt: skip
    load, started_at = os.getloadavg()[0], time.monotonic()
    with open(folder / "output.txt", "ab") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        said = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    outcome = _outcome(Result.load(folder / "job"), ratios)
    outcome["minutes"]["job"] = round((time.monotonic() - started_at) / 60, 2)
    outcome |= {"seed": seed, "load_average": round(load, 1)}
    write_json(kept, outcome)
    print(f"{folder.name}: {outcome}", file=sys.stderr, flush=True)
    return outcome


def _outcome(result: Result, ratios: Sequence[float]) -> dict[str, Any]:
    by_ratio = {}
    for ratio in ratios:
        bundle = read_bundle(
            discretize(result.folder, ratio, out=result.folder / f"at-{ratio:g}.zip")
        )
        by_ratio[f"{ratio:g}"] = {
            "accuracy": bundle.metric.test,
            "interval": wilson(
                round(bundle.metric.test * bundle.metric.num_test_samples),
                bundle.metric.num_test_samples,
            ),
            "num_samples": bundle.metric.num_test_samples,
            "params": bundle.params,
        }
    front = [
        {
            "accuracy": point.test_metric_value,
            "validation": point.metric_value,
            "params": point.params,
            "macs": point.macs,
            "latency_ms": point.latency_ms.at_percentile,
        }
        for point in result.front()
    ]
    seconds = result.record.job["seconds"]
    return {
        "at": by_ratio,
        "front": front,
        "minutes": {stage: round(value / 60, 2) for stage, value in seconds.items()},
    }


def median_at(outcomes: Sequence[dict[str, Any]], ratio: float) -> float:
    """Test accuracy at a ratio of the widths, in %, the median of several seeds."""
    return 100 * statistics.median(one["at"][f"{ratio:g}"]["accuracy"] for one in outcomes)


def shown(outcome: dict[str, Any], ratio: float) -> str:
    """Test accuracy at a ratio of the widths, with its 95 % interval, in %."""
    found = outcome["at"][f"{ratio:g}"]
    low, high = (100 * value for value in found["interval"])
    return f"{100 * found['accuracy']:.1f} ({low:.1f} to {high:.1f})"
