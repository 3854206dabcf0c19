"""How long an `ElasticModel` takes to switch its point, and whether requests are lost meanwhile."""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.report import Goal, Report, Table, add_report_options, conclude
from inn_automl.export import BundleConfig, OnnxTemplate, write_bundle, write_elastic
from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.serving import ElasticModel, sessions

MAX_SWITCH_MS = 20.0
PAUSE_S = 0.01  # between switches, so that each one meets requests on its point
DEMO_SHAPE, NUM_CLASSES, NUM_POINTS = (1, 28, 28), 10, 8
DEVICE = "none"


@dataclass
class Served:
    """What one serving thread saw."""

    num_asked: int = 0
    num_answered: int = 0
    errors: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


def make_resnet(folder: Path) -> tuple[Path, int]:
    """elastic.zip of the demo's data shape and the residual family at evenly spread widths; bytes
    of its bundles.

    Untrained: what a switch takes does not depend on the weights' values. No latencies are
    measured for it.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = IntegralNetwork(
        build("resnet", DEMO_SHAPE, NUM_CLASSES).eval(), torch.zeros(2, *DEMO_SHAPE)
    ).eval()
    network.save(folder / "network")
    mean, std = np.zeros(1, np.float32), np.ones(1, np.float32)
    samples = np.random.default_rng(0).standard_normal((4, *DEMO_SHAPE), dtype=np.float32)
    full, small = (
        network.discretize(w).eval() for w in (network.full_widths, network.smallest_widths)
    )
    template = OnnxTemplate.from_modules(
        full, small, input_shape=DEMO_SHAPE, mean=mean, std=std, samples=samples
    )
    bundles = []
    for share in np.linspace(network.min_ratio, 1.0, NUM_POINTS):
        widths = network.uniform_widths(float(share))
        module = network.discretize(widths).eval()
        export = template.export(module, folder / "model.onnx", widths=widths)
        config = make_config(f"share-{share:.2f}", network, widths, export.difference)
        bundles.append(folder / f"{config.id}.zip")
        write_bundle(bundles[-1], config, onnx=export.path, weights=module.state_dict())
    write_elastic(folder / "elastic.zip", bundles, folder / "network")
    return folder / "elastic.zip", sum(path.stat().st_size for path in bundles)


def make_config(
    bundle_id: str, network: IntegralNetwork, widths: dict[str, int], difference: float
) -> BundleConfig:
    """The configuration of a bundle that was neither trained nor measured."""
    costs = network.costs(widths)
    # Latencies only order the points here, so multiply-accumulates stand for them.
    latency: dict[str, object] = dict.fromkeys(("p50", "p95", "p99", "at_percentile"), costs.macs)
    latency |= {"ci": (costs.macs, costs.macs), "percentile": 95.0, "num_samples": 0}
    measurement = {
        "runtime": "onnxruntime-cpu",
        "threads": 1,
        "batch_size": 1,
        "latency_ms": latency,
        "environment": {},
    }
    metric = {"name": "accuracy", "unit": "", "validation": 0.0, "test": 0.0}
    return BundleConfig.model_validate(
        {
            "id": bundle_id,
            "family": "resnet",
            "build": {
                "input_shape": DEMO_SHAPE,
                "num_classes": NUM_CLASSES,
                "width": 1.0,
                "depth": None,
            },
            "widths": widths,
            "classes": tuple("0123456789"),
            "input": {"name": "input", "shape": DEMO_SHAPE},
            "output": {"name": "logits", "shape": (NUM_CLASSES,)},
            "preprocessing": {"mean": (0.0,), "std": (1.0,)},
            "dataset": {"name": "none", "fingerprint": "none"},
            "metric": {**metric, "test_ci": (0.0, 1.0), "num_test_samples": 0},
            "params": costs.params,
            "macs": costs.macs,
            "latency": {DEVICE: measurement},
            "verification": {"max_difference": difference, "tolerance": 1e-4, "num_samples": 4},
        }
    )


@dataclass(frozen=True)
class Switch:
    """Milliseconds from the call."""

    done_ms: float
    answered_ms: float
    """Until the new point has answered a first request."""


@dataclass(frozen=True)
class Arm:
    """One way to keep sessions: switches, requests meanwhile, and what loading took."""

    alone: list[Switch]
    serving: list[Switch]
    served: list[Served]
    load_ms: float
    memory_mib: float


def measure(path: Path, device: str | None, num_rounds: int, bundles_bytes: int | None) -> Report:
    """Switches between all ordered pairs of points, first with nothing else at work, then under
    two serving threads.
    """
    model = ElasticModel(path, device=device)  # what any first session loads is not counted
    arms = {
        "made ahead (default)": run_arm(path, device, num_rounds, sessions.MAX_BYTES),
        "made when needed (max_bytes=0)": run_arm(path, device, num_rounds, 0),
    }
    report = Report(
        "elastic",
        "What it takes to switch an ElasticModel between all ordered pairs of its points, and what "
        "two threads that "
        "ask for logits without a pause see of it.",
        {
            "model": model.config.family,
            "params_of_the_widest": max(point.params for point in model.points),
            "points": len(model.points),
            "rounds": num_rounds,
        },
    )
    add_goals(report, next(iter(arms.values())), list(arms.values()))
    add_tables(report, arms)
    size = f"The file takes {path.stat().st_size} bytes, "
    size += f"the models alone {sum(point.size_bytes for point in model.points)}"
    if bundles_bytes:
        size += f", the bundles {bundles_bytes}: {path.stat().st_size / bundles_bytes:.2f} of them"
    report.notes.append(f"{size}.")
    report.notes.append(
        "Pairs come in an order drawn again each round. Beside two serving threads and whatever "
        "else is at work (see the load average) a switch waits for a core as they do."
    )
    served = [one for arm in arms.values() for one in arm.served]
    report.notes += [f"Lost: {error}" for one in served for error in one.errors[:3]]
    return report


def add_goals(report: Report, judged: Arm, arms: Sequence[Arm]) -> None:
    """The slowest switch of one arm, and the requests that any arm lost."""
    for name, found in (
        ("nothing else at work", judged.alone),
        ("two threads serving", judged.serving),
    ):
        worst = max(one.done_ms for one in found)
        report.goals.append(
            Goal(
                f"switch, {name}",
                f"under {MAX_SWITCH_MS:g} ms",
                f"at most {worst:.3g} ms",
                worst < MAX_SWITCH_MS,
            )
        )
    every = [one for arm in arms for one in arm.served]
    asked = sum(one.num_asked for one in every)
    lost = asked - sum(one.num_answered for one in every)
    report.goals.append(Goal("requests lost", "none", f"{lost} of {asked}", lost == 0))


def add_tables(report: Report, arms: dict[str, Arm]) -> None:
    """Switches, first answers and requests of each arm; the samples go to `raw`."""
    columns = ("sessions", "", "number", "median ms", "p99 ms", "max ms")
    switches, answers = [], []
    for name, arm in arms.items():
        for load, found in (("nothing else at work", arm.alone), ("two serving", arm.serving)):
            done, answered = [one.done_ms for one in found], [one.answered_ms for one in found]
            switches.append((name, load, *cells(done)))
            answers.append((name, load, *cells(answered)))
            report.raw[f"{name}, {load}"] = {
                "done_ms": rounded(done),
                "answered_ms": rounded(answered),
            }
        report.notes.append(
            f"Sessions {name}: loaded in {arm.load_ms:.0f} ms, {arm.memory_mib:.1f} MiB of memory."
        )
    report.tables.append(Table("A switch, from the call to a point that serves", columns, switches))
    report.tables.append(Table("A switch and the first answer of the new point", columns, answers))
    rows = [
        (name, "two serving", *cells([ms for one in arm.served for ms in one.latencies_ms]))
        for name, arm in arms.items()
    ]
    report.tables.append(Table("A request while points change", columns, rows))


def run_arm(path: Path, device: str | None, num_rounds: int, max_bytes: int) -> Arm:
    before_mib, loaded_at = memory_mib(), time.perf_counter()
    model = ElasticModel(path, device=device, max_bytes=max_bytes)
    load_ms, memory = 1e3 * (time.perf_counter() - loaded_at), memory_mib() - before_mib
    alone = switch(model, num_rounds)
    stop, served = threading.Event(), [Served(), Served()]
    threads = [threading.Thread(target=serve, args=(model, one, stop)) for one in served]
    for thread in threads:
        thread.start()
    try:
        serving = switch(model, num_rounds)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return Arm(alone, serving, served, load_ms, memory)


def memory_mib() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss / 2**20)


def rounded(samples_ms: Sequence[float]) -> list[float]:
    return [round(ms, 4) for ms in samples_ms]


def cells(samples_ms: Sequence[float]) -> tuple[object, ...]:
    median, p99 = np.percentile(samples_ms, (50, 99))
    return len(samples_ms), f"{median:.3g}", f"{p99:.3g}", f"{max(samples_ms):.3g}"


def switch(model: ElasticModel, num_rounds: int) -> list[Switch]:
    """All ordered pairs, each round in a new order."""
    pairs, found = list(itertools.permutations([point.id for point in model.points], 2)), []
    samples = np.zeros((1, *model.config.input.shape), np.float32)
    generator = random.Random(0)
    for _ in range(num_rounds):
        generator.shuffle(pairs)
        for before, after in pairs:
            model.set_point(before)
            start = time.perf_counter()
            model.set_point(after)
            done = time.perf_counter()
            model.run(samples)
            found.append(Switch(1e3 * (done - start), 1e3 * (time.perf_counter() - start)))
            time.sleep(PAUSE_S)
    return found


def serve(model: ElasticModel, served: Served, stop: threading.Event) -> None:
    samples = np.zeros((1, *model.config.input.shape), np.float32)
    while not stop.is_set():
        served.num_asked += 1
        start = time.perf_counter()
        try:
            logits = model.run(samples)
        except Exception as error:  # whatever it is, the request is lost
            served.errors.append(repr(error))
            continue
        served.latencies_ms.append(1e3 * (time.perf_counter() - start))
        served.num_answered += logits.shape == (1, *model.config.output.shape)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks elastic", description=__doc__)
    parser.add_argument(
        "--elastic",
        type=Path,
        metavar="FILE",
        help="elastic.zip of a job (default: an untrained ResNet)",
    )
    parser.add_argument("--device", help="of the job's devices, where it has several")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of all ordered pairs of points (default: 5)"
    )
    add_report_options(parser)
    options = parser.parse_args(arguments)
    if options.elastic is not None:
        return conclude(measure(options.elastic, options.device, options.rounds, None), options)
    with tempfile.TemporaryDirectory() as folder:
        path, bundles_bytes = make_resnet(Path(folder))
        return conclude(measure(path, DEVICE, options.rounds, bundles_bytes), options)


if __name__ == "__main__":
    sys.exit(main())
