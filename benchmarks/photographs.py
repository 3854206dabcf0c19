"""A job on photographs with a pretrained network, beside the same network fine-tuned by hand.

Six kinds of shapes over photographs, the test split over photographs that training does not see
(`benchmarks.shapes`). The job is the command `inn-automl run`, with minutes of training that the
peer (`benchmarks.plain_fine_tuning`) has as well. Finished arms leave files in `--runs`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.plain_fine_tuning import MODEL, fine_tune, imagenet_weights
from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from benchmarks.shapes import CLASSES, make_shapes
from inn_automl import Result, discretize
from inn_automl.core.result import FrontPoint
from inn_automl.core.storage import read_json, write_json
from inn_automl.export.bundle import read_bundle
from inn_automl.tasks.classification import wilson

ARMS = {
    "plain": "fine-tuned by hand",
    "plain, no weights": "the same, from nothing",
    "job": "the job",
    "job, no weights": "the job, from nothing",
}
MAX_POINTS_LOST, MAX_JOB_MINUTES = 2.0, 20.0
CHANCE = 1 / len(CLASSES)
_BUDGET = """\
devices:
  - {{name: two-threads, threads: 2}}
training: {{max_minutes: {minutes:g}, cpus: 2}}
max_minutes: {job_minutes:g}
"""


def execute(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one arm found, from its file where an earlier call has left it."""
    path = options.runs / f"{arm.replace(', ', '-').replace(' ', '-')}-seed{options.seed}.json"
    if path.exists():
        found: dict[str, Any] = read_json(path)
        return found
    data = make_shapes(seed=options.seed)
    weights = None if "no weights" in arm else imagenet_weights()
    load = os.getloadavg()[0]
    work: Callable[..., dict[str, Any]] = _job if arm.startswith("job") else _plain
    outcome = {"arm": arm, "load_average": round(load, 1), **work(data, weights, options, path)}
    write_json(path, outcome)
    print(f"{arm}: {outcome}", file=sys.stderr, flush=True)
    return outcome


def _plain(
    data: Path, weights: Path | None, options: argparse.Namespace, path: Path
) -> dict[str, Any]:
    torch.set_num_threads(2)
    found = fine_tune(
        data,
        seconds=60 * options.minutes,
        size=options.plain_size,
        weights=weights,
        epochs=options.plain_epochs,
    )
    return {
        "full": _accuracy(found.accuracy, len(found.correct)),
        "epochs": round(found.epochs, 2),
        "minutes": {"training": round(found.seconds / 60, 2)},
    }


def _job(
    data: Path, weights: Path | None, options: argparse.Namespace, path: Path
) -> dict[str, Any]:
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    budget = folder / "budget.yaml"
    limits = {"minutes": options.minutes, "job_minutes": MAX_JOB_MINUTES}
    budget.write_text(_BUDGET.format(**limits), encoding="utf-8")
    out = folder / "job"
    command = [
        str(Path(sys.executable).with_name("inn-automl")), "run", "--backend", "local",
        "--dataset", str(data), "--model", f"timm:{MODEL}", "--weights", str(weights or "none"),
        "--budget", str(budget), "--out", str(out), *options.job_option,
    ]  # fmt: skip
    started_at = time.monotonic()
    with open(folder / "output.txt", "ab") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    minutes = (time.monotonic() - started_at) / 60
    if ended.returncode:
        said = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-1500:]
        return {"stopped": said, "exit_code": ended.returncode, "minutes": {"job": minutes}}
    return _qualities(Result.load(out), minutes)


def _qualities(result: Result, minutes: float) -> dict[str, Any]:
    """Accuracy of a finished job's network at full width, and of its best at half of the MACs."""
    full = read_bundle(discretize(result.folder, 1.0, out=result.folder / "full.zip"))
    halved = [point for point in result.front() if point.macs <= full.macs / 2]
    best: FrontPoint | None = max(halved, key=lambda point: point.metric_value, default=None)
    found: dict[str, Any] = {
        "full": _accuracy(full.metric.test, full.metric.num_test_samples),
        "front": [
            {
                "accuracy": point.test_metric_value,
                "validation": point.metric_value,
                "macs": point.macs,
                "latency_ms": point.latency_ms.at_percentile,
            }
            for point in result.front()
        ],
        "macs": full.macs,
        "input_shape": list(full.input.shape),
        "minutes": {
            **{stage: seconds / 60 for stage, seconds in result.record.job["seconds"].items()},
            "job": minutes,
        },
    }
    if best is not None:
        found["half"] = _accuracy(best.test_metric_value, full.metric.num_test_samples)
    return found


def _accuracy(share: float, count: int) -> list[float]:
    """In %, with its 95 % interval."""
    low, high = wilson(round(share * count), count)
    return [round(100 * value, 2) for value in (share, low, high)]


def summarize(outcomes: dict[str, dict[str, Any]], settings: dict[str, Any]) -> Report:
    report = Report(
        "photographs",
        "Accuracy on photographs that training has not seen, of a job and of plain fine-tuning "
        "in the same minutes.",
        settings,
        raw={"runs": list(outcomes.values())},
    )
    report.goals += _goals(outcomes)
    rows = [
        (
            ARMS[arm],
            _shown(one, "full"),
            _shown(one, "half"),
            f"{one['minutes'].get('training', float('nan')):.1f}",
            f"{one['minutes'].get('job', float('nan')):.1f}",
            one["load_average"],
        )
        for arm, one in outcomes.items()
    ]
    columns = (
        "arm", "full width, %", "half of the MACs, %", "training, minutes", "job, minutes", "load",
    )  # fmt: skip
    report.tables.append(Table("Accuracy on the test split, with 95 % intervals", columns, rows))
    for arm, one in outcomes.items():
        if arm.startswith("job") and "front" in one:
            stages = [(stage, f"{minutes:.1f}") for stage, minutes in one["minutes"].items()]
            report.tables.append(Table(f"Minutes of {ARMS[arm]}", ("stage", "minutes"), stages))
            report.tables.append(_front_table(ARMS[arm], one))
        if "stopped" in one:
            report.notes.append(f"{ARMS[arm]} stopped: {one['stopped'].splitlines()[-1]}")
    return report


def _goals(outcomes: dict[str, dict[str, Any]]) -> list[Goal]:
    goals = []
    plain, job = outcomes.get("plain"), outcomes.get("job")
    if plain and job and "full" in job:
        peer, full = plain["full"][0], job["full"][0]
        half = job["half"][0] if "half" in job else 0.0
        goals += [
            Goal("at full width", f"at least {peer:.1f} %, as by hand", f"{full:.1f} %",
                 full >= peer),
            Goal("at half of its MACs", f"at most {MAX_POINTS_LOST:g} points less than full width",
                 f"{half - full:+.1f}", full - half <= MAX_POINTS_LOST),
            Goal("time of the whole job", f"at most {MAX_JOB_MINUTES:g} minutes",
                 f"{job['minutes']['job']:.1f}", job["minutes"]["job"] <= MAX_JOB_MINUTES),
        ]  # fmt: skip
    unaided = outcomes.get("job, no weights")
    if unaided:
        found = f"{unaided['full'][0]:.1f} %" if "full" in unaided else "a stop"
        met = "full" not in unaided or unaided["full"][0] >= 200 * CHANCE
        to_reach = f"at least {200 * CHANCE:.1f} %, twice chance, or a stop that says so"
        goals.append(Goal("from nothing", to_reach, found, met))
    return goals


def _shown(outcome: dict[str, Any], width: str) -> str:
    if width not in outcome:
        return "stopped" if "stopped" in outcome else ""
    value, low, high = outcome[width]
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _front_table(name: str, outcome: dict[str, Any]) -> Table:
    rows: list[tuple[Any, ...]] = [
        (
            f"{point['macs'] / outcome['macs']:.2f}",
            f"{point['latency_ms']:.2f}",
            f"{100 * point['validation']:.1f}",
            f"{100 * point['accuracy']:.1f}",
        )
        for point in outcome["front"]
    ]
    columns = ("share of MACs", "p95, ms", "validation, %", "test, %")
    return Table(f"The front of {name}", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks photographs", description=__doc__)
    parser.add_argument("--arms", default="plain;job;job, no weights", help="of " + "; ".join(ARMS))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the dataset (default: 0)")
    parser.add_argument(
        "--plain-size", type=int, default=128, metavar="PIXELS", help="by hand (default: 128)"
    )
    parser.add_argument(
        "--plain-epochs",
        type=float,
        metavar="N",
        help="train by hand so long, whatever it takes: for a machine that is busy",
    )
    parser.add_argument(
        "--job-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="one more word for inn-automl run",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=SCRATCH / "photographs",
        metavar="DIR",
        help="what was done is kept here",
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    arms = [arm.strip() for arm in options.arms.split(";")]
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"there is no arm {arm!r}: give some of {'; '.join(ARMS)}.")
    outcomes = {arm: execute(arm, options) for arm in arms}
    settings = {
        "minutes": options.minutes,
        "seed": options.seed,
        "plain_size": options.plain_size,
        "plain_epochs": options.plain_epochs,
        "job_options": " ".join(options.job_option),
    }
    return conclude(summarize(outcomes, settings), options)


if __name__ == "__main__":
    sys.exit(main())
