"""int8 files beside fp32 ones of the same widths: latency, accuracy and size, for four families
and several widths.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import SCRATCH, Goal, Report, Table, add_report_options, conclude
from inn_automl.core.spec import DeviceBudget
from inn_automl.data import Dataset, load_dataset
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.evaluation.onnx_precision import (
    OnnxTemplates,
    agreement,
    evaluate_file,
    range_samples,
)
from inn_automl.export import quantize_onnx
from inn_automl.latency.benchmark import measure
from inn_automl.latency.config import QUICK
from inn_automl.tasks import Task
from inn_automl.training.recipe import trial_specs
from inn_automl.training.trained import Trained
from inn_automl.training.trial import run_trial

NETWORKS = ("resnet:mnist5k", "mobilenet:mnist5k", "convnet:mnist5k", "signal:mnist1d")
RATIOS = (0.25, 0.5, 0.75, 1.0)
OPTIONS: dict[str, dict[str, bool]] = {
    "as chosen": {},
    "weights of 8 bits": {"reduce_range": False},
    "one scale a tensor": {"per_channel": False},
    "signed activations": {"signed_activations": True},
}
"""Compared at full width."""
MAX_LOST = 0.01
"""Accuracy that int8 may lose at the same widths."""


def train(family: str, dataset: Dataset, folder: Path, minutes: float) -> Trained:
    """A network for this benchmark, trained once a folder."""
    candidate = trial_specs(family, len(dataset.train), 1, seed=0)[0]
    return run_trial(
        candidate, family, Task.from_dataset(dataset), folder, seed=0, seconds=60 * minutes
    )


def export(trained: Trained, dataset: Dataset, folder: Path) -> dict[str, dict[str, Any]]:
    """The fp32 and int8 files of each ratio and, at full width, of each of the options, with what
    they cost to make.
    """
    network, template = trained.network(), OnnxTemplates().get(trained.architecture, dataset)
    candidates = CandidateBuilder.from_network(network, Task.from_dataset(dataset))
    files: dict[str, dict[str, Any]] = {}
    for ratio in RATIOS:
        widths = network.uniform_widths(max(ratio, network.min_ratio))
        source = folder / f"{ratio:g} fp32.onnx"
        template.export(candidates.build(widths).module, source, widths=widths)
        files[source.stem] = {"path": source, "of": source}
        for name, options in (
            OPTIONS.items() if ratio == RATIOS[-1] else [("as chosen", OPTIONS["as chosen"])]
        ):
            path = folder / f"{ratio:g} int8, {name}.onnx"
            started_at = time.perf_counter()
            quantize_onnx(source, path, range_samples(dataset), **options)
            files[path.stem] = {
                "path": path,
                "of": source,
                "quantizing_s": time.perf_counter() - started_at,
            }
    return files


def compare(network: str, folder: Path, minutes: float, threads: int, report: Report) -> None:
    """Adds one network's table to the report."""
    family, _, source = network.partition(":")
    dataset = load_dataset(source, seed=0)
    trained = train(family, dataset, folder / f"{family}-{source}", minutes)
    files = export(trained, dataset, folder / f"{family}-{source}-files")
    device = DeviceBudget(name="here", threads=threads, percentile=50)
    measured = measure({name: one["path"] for name, one in files.items()}, device, config=QUICK)
    for name, one in files.items():
        found = evaluate_file(one["path"], Task.from_dataset(dataset), "validation")
        one.update(
            accuracy=found.value,
            num_samples=found.num_samples,
            size_bytes=one["path"].stat().st_size,
            agreement=agreement(one["of"], one["path"], dataset),
            p50_ms=measured[name].summary.p50,
            p95_ms=measured[name].summary.p95,
            ci_ms=measured[name].summary.ci,
        )
    rows = []
    for name, one in files.items():
        whole = files[one["of"].stem]
        rows.append(
            (
                name,
                f"{1000 * one['p50_ms']:.1f}",
                f"{whole['p50_ms'] / one['p50_ms']:.2f}",
                f"{100 * one['accuracy']:.2f}",
                f"{100 * one['agreement']:.2f}",
                f"{one['size_bytes']:,}",
                f"{one['quantizing_s']:.2f}" if "quantizing_s" in one else "",
            )
        )
    columns = (
        "ratio of widths, precision",
        "p50, us",
        "times as fast as fp32",
        "accuracy, %",
        "same class as fp32, %",
        "bytes",
        "quantized in, s",
    )
    title = (
        f"{family} (depth {trained.architecture.depth}) on {source}, "
        f"validation of {dataset.validation.size:,}"
    )
    report.tables.append(Table(title, columns, rows))
    report.raw[network] = {
        name: {**one, "path": None, "of": one["of"].stem} for name, one in files.items()
    }


def judge(report: Report) -> None:
    """The goals: int8 is faster somewhere, and keeps the accuracy everywhere."""
    chosen = [
        (network, name, one, files[one["of"]])
        for network, files in report.raw.items()
        for name, one in files.items()
        if name.endswith("as chosen")
    ]
    lost, where = max(
        (whole["accuracy"] - one["accuracy"], f"{network} {name}")
        for network, name, one, whole in chosen
    )
    gain, best = max(
        (whole["p50_ms"] / one["p50_ms"], f"{network} {name}")
        for network, name, one, whole in chosen
    )
    report.goals += [
        Goal(
            "accuracy lost at the same widths, at most",
            f"{100 * MAX_LOST:g} points",
            f"{100 * lost:.2f} ({where})",
            lost <= MAX_LOST,
        ),
        Goal("somewhere faster than fp32", "over 1 times", f"{gain:.2f} times ({best})", gain > 1),
    ]
    slower = sum(whole["p50_ms"] < one["p50_ms"] for _, _, one, whole in chosen)
    report.notes += [
        f"At {slower} of {len(chosen)} widths int8 was slower: it is a choice for the search, not "
        f"a default.",
        "All files of a network are measured together, interleaved, in processes of their own. "
        "Networks were trained "
        "for a minute or so: the point is what int8 changes, not how good they are.",
        f"The processor {'has' if _has_vnni() else 'lacks'} int8 dot products (VNNI).",
    ]


def _has_vnni() -> bool:
    return "vnni" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks precision", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="FAMILY:DATASET")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training for each network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--folder",
        type=Path,
        default=SCRATCH / "precision",
        help="trained networks are kept in here",
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report = Report(
        "precision",
        "What int8 gains and loses against fp32 at the same widths in ONNX Runtime on the CPU, "
        "batch 1, "
        f"{options.threads} thread{'s' if options.threads > 1 else ''}.",
        {
            "networks": list(options.networks),
            "training_minutes": options.minutes,
            "threads": options.threads,
        },
    )
    for network in options.networks:
        compare(network, options.folder, options.minutes, options.threads, report)
    judge(report)
    return conclude(report, options)
