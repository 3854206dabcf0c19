"""Measures the recommended bundle of every device of finished jobs again: does it keep its bounds?

Reads result.json and the bundles that it names, nothing else; the models run in fresh processes.
Give it time to pass between the job and this: that is what it is about.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.budgets_jobs import make_jobs
from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from inn_automl.core.result import DeviceResult, FrontPoint, JobResult, LatencySummary
from inn_automl.core.spec import DeviceBudget, parse
from inn_automl.core.storage import read_json
from inn_automl.export.bundle import ONNX, extract_bundle
from inn_automl.export.records import BundleConfig
from inn_automl.latency.benchmark import measure


@dataclass(frozen=True)
class Recommendation:
    """A recommended front point of one device, with its bundle."""

    folder: Path
    budget: DeviceBudget
    point: FrontPoint

    @property
    def bundle(self) -> Path:
        return self.folder / self.point.bundle


@dataclass(frozen=True)
class Again:
    """What was found when a recommendation was measured again."""

    config: BundleConfig
    latency: LatencySummary
    missed: tuple[str, ...]
    diagnostic: str


def recommendations(folder: Path) -> tuple[list[Recommendation], list[str]]:
    """Those of a job's devices, and one sentence for each device that has none.

    Raises:
        SystemExit: the folder holds no finished job.
    """
    found, without = [], []
    try:
        result = JobResult.model_validate(read_json(folder / "result.json"))
    except FileNotFoundError:
        raise SystemExit(
            f"there is no result.json in {str(folder)!r}: give the folder of a finished job."
        ) from None
    for device in result.devices:
        budget = parse(DeviceBudget, device.budget, where=f"budget of {device.name!r}")
        point = _recommended(device)
        if point is None:
            without.append(f"{folder.name}, {device.name}: {device.recommendation}")
        else:
            found.append(Recommendation(folder, budget, point))
    return found, without


def _recommended(device: DeviceResult) -> FrontPoint | None:
    return next((point for point in device.front if point.id == device.recommended), None)


def measure_again(one: Recommendation) -> Again:
    """Unpacks the bundle, checking its hashes, and measures its model alone."""
    with tempfile.TemporaryDirectory() as scratch:
        config = extract_bundle(one.bundle, scratch)
        model = Path(scratch) / ONNX
        size_bytes = model.stat().st_size
        measurement = measure({"model": model}, one.budget)["model"]
    figures = {
        "max_latency_ms": measurement.summary.at_percentile,
        "max_params": config.params,
        "max_macs": config.macs,
        "max_size_bytes": size_bytes,
        "max_memory_bytes": measurement.memory.added_bytes if measurement.memory else math.inf,
    }
    bounds = {name: getattr(one.budget, name) for name in figures}
    missed = tuple(
        name for name, bound in bounds.items() if bound is not None and figures[name] > bound
    )
    return Again(config, measurement.summary, missed, measurement.diagnostic)


def compare(folders: Sequence[Path], repeats: int) -> Report:
    """All recommendations of all jobs, `repeats` times in turn."""
    chosen: list[Recommendation] = []
    without: list[str] = []
    for folder in folders:
        found, none = recommendations(folder)
        chosen += found
        without += none
    measured = []
    for _ in range(repeats):
        for one in chosen:
            measured.append((one, measure_again(one)))
            print(
                f"{one.folder.name}, {one.budget.name}: {_verdict(*measured[-1])}", file=sys.stderr
            )
    report = summarize(measured, {"results": [f.name for f in folders], "repeats": repeats})
    report.notes += [f"Nothing to measure: {sentence}" for sentence in without]
    report.notes += [
        f"{one.folder.name}, {one.budget.name}: {again.diagnostic}"
        for one, again in measured
        if again.diagnostic
    ]
    return report


def summarize(
    measured: Sequence[tuple[Recommendation, Again]], settings: dict[str, object]
) -> Report:
    """The goal, and a row for each measurement."""
    report = Report(
        "budgets_kept",
        "Whether the models that finished jobs recommend keep their bounds when they are measured "
        "again.",
        settings,
        raw={"measurements": [_raw(one, again) for one, again in measured]},
    )
    num_kept = sum(not again.missed for _, again in measured)
    report.goals.append(
        Goal(
            "recommended bundles that keep their bounds when measured again",
            "all",
            f"{num_kept} of {len(measured)}",
            num_kept == len(measured) if measured else None,
        )
    )
    columns = (
        "job, device",
        "point",
        "bound, ms",
        "promised, ms",
        "again, ms",
        "ratio",
        "bundle made at",
        "kept",
    )
    rows = [_row(one, again) for one, again in measured]
    report.tables.append(Table("Recommended bundles", columns, rows))
    report.notes.append(
        "Latencies are at the percentile that the device's budget names, with their 95 % "
        "intervals; each model was measured alone."
    )
    return report


def _row(one: Recommendation, again: Again) -> tuple[object, ...]:
    promised, bound = one.point.latency_ms, one.budget.max_latency_ms
    made_at = again.config.created_at
    return (
        f"{one.folder.name}, {one.budget.name}",
        one.point.id,
        "none" if bound is None else f"{bound:g}",
        _cell(promised),
        _cell(again.latency),
        f"{again.latency.at_percentile / promised.at_percentile:.3f}",
        "unknown" if made_at is None else made_at.isoformat(timespec="minutes"),
        _verdict(one, again),
    )


def _raw(one: Recommendation, again: Again) -> dict[str, object]:
    return {
        "result": one.folder.name,
        "device": one.budget.name,
        "id": one.point.id,
        "promised": one.point.latency_ms.model_dump(),
        "again": again.latency.model_dump(),
        "missed": list(again.missed),
        "diagnostic": again.diagnostic,
    }


def _verdict(one: Recommendation, again: Again) -> str:
    if not again.missed:
        return "yes"
    bound = one.budget.max_latency_ms
    is_unclear = (
        again.missed == ("max_latency_ms",) and bound is not None and again.latency.ci[0] <= bound
    )
    return f"no: {', '.join(again.missed)}" + (
        ", which lies inside of the interval" if is_unclear else ""
    )


def _cell(latency: LatencySummary) -> str:
    return f"{latency.at_percentile:.4g} ({latency.ci[0]:.4g} to {latency.ci[1]:.4g})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks budgets_kept", description=__doc__)
    parser.add_argument(
        "--result", type=Path, nargs="+", default=[], metavar="DIR", help="folders of finished jobs"
    )
    parser.add_argument(
        "--make",
        type=Path,
        metavar="DIR",
        help="run the 40 jobs of `benchmarks.budgets_jobs` there first",
    )
    parser.add_argument(
        "--repeats", type=int, default=1, help="times that every bundle is measured (default: 1)"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    if not options.result and options.make is None:
        parser.error("give --result, --make, or both")
    folders = [*options.result, *(make_jobs(options.make) if options.make else ())]
    return conclude(compare([folder.resolve() for folder in folders], options.repeats), options)


if __name__ == "__main__":
    sys.exit(main())
