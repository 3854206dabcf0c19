"""The whole of a small search space, evaluated and measured once: what a search of it is judged
by.

One convolutional INN with 4 coupled groups, each of which may take 6 widths: 1,296 networks. Of
every one the accuracy on the validation split, and the latency on a CPU with one thread; with two
threads that of a part of them. All of it is kept in a folder part by part, so that a call after an
interrupt goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inn_automl.core.spec import DeviceBudget
from inn_automl.core.storage import read_json, write_json
from inn_automl.data import Dataset, load_dataset
from inn_automl.evaluation.candidates import (
    count_correct,
    sample_candidate,
)
from inn_automl.export import OnnxTemplate
from inn_automl.integral import IntegralNetwork
from inn_automl.latency.benchmark import measure
from inn_automl.latency.config import BenchmarkConfig
from inn_automl.latency.design import initial_design
from inn_automl.models.architecture import Architecture
from inn_automl.pipeline.latency_model import NUM_INITIAL_WIDTHS
from inn_automl.tasks import Task
from inn_automl.training.loop import train
from inn_automl.training.recipe import default_recipe
from inn_automl.width_search.space import Key, SearchSpace

DATASET, FAMILY, WIDTH, DEPTH, EPOCHS = "mnist5k", "convnet", 2.0, 4, 2
ALLOWED = (range(12, 33, 4), range(29, 65, 7), range(36, 97, 12), range(58, 129, 14))
"""Widths of each group, on and off the multiples of 8 that kernels like."""
NUM_CALIBRATION = 512
"""Training samples that normalization statistics are re-estimated on: a quarter of a job's, for
time.
"""

BENCHMARK_CONFIG = BenchmarkConfig(
    min_processes=4, max_processes=4, num_blocks=16, min_s=0.5, max_s=60.0
)
PART, NUM_REFERENCE_CONFIGURATIONS = 108, 6
"""Networks measured together, and those of them that are measured in every part to tell a drift of
the machine.
"""

DEVICES = (DeviceBudget(name="one-thread", threads=1), DeviceBudget(name="two-threads", threads=2))
NUM_OF_LAST = 240
"""Networks measured on the second device."""


@dataclass(frozen=True)
class _Group:
    name: str
    size: int
    allowed: range


@dataclass(frozen=True)
class Truth:
    """What is known of the space.

    Attributes:
        points: (1296, 4) widths.
        accuracy: (1296,), shares of the validation split.
        latency_ms: by device, (1296,); NaN where it was not measured.
        environment: by device, what was measured on.
        contended: by device and part, the share of time slices that were repeated because others
            had the cores.
    """

    network: IntegralNetwork
    space: SearchSpace
    points: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    latency_ms: Mapping[str, NDArray[np.float64]]
    environment: Mapping[str, dict[str, Any]]
    contended: Mapping[str, list[float]]

    def index(self) -> dict[Key, int]:
        return {tuple(point): i for i, point in enumerate(self.points.tolist())}


def find_truth(folder: Path) -> Truth:
    """Trains, evaluates and measures whatever the folder does not hold yet (10 to 20 minutes from
    nothing).

    Raises:
        SystemExit: the folder belongs to other settings.
    """
    settings = {
        "dataset": DATASET,
        "family": FAMILY,
        "width": WIDTH,
        "depth": DEPTH,
        "epochs": EPOCHS,
        "allowed": [list(widths) for widths in ALLOWED],
        "num_calibration": NUM_CALIBRATION,
    }
    path = folder / "settings.json"
    if path.exists() and read_json(path) != settings:
        raise SystemExit(f"{str(folder)!r} holds the truth of another space: give another folder.")
    write_json(path, settings)
    torch.set_num_threads(1)
    dataset = load_dataset(DATASET)
    network = _trained(folder, dataset)
    space = SearchSpace(
        _Group(group.name, group.size, allowed)
        for group, allowed in zip(network.groups, ALLOWED, strict=True)
    )
    points = space.points()
    accuracy = _accuracies(folder, network, dataset, space)
    latency, environment, contended = {}, {}, {}
    for device in DEVICES:
        parts = _latencies(folder, network, dataset, space, device)
        latency[device.name] = _joined(parts, len(points))
        environment[device.name] = parts[0]["environment"]
        contended[device.name] = [part["contended_fraction"] for part in parts]
    return Truth(network, space, points, accuracy, latency, environment, contended)


def _trained(folder: Path, dataset: Dataset) -> IntegralNetwork:
    architecture = Architecture(FAMILY, dataset.input_shape, dataset.num_classes, WIDTH, DEPTH)
    if not (folder / "network").exists():
        network = architecture.network()
        recipe = default_recipe(FAMILY, len(dataset.train))
        print(f"training for {EPOCHS} epochs", file=sys.stderr)
        train(
            network,
            Task.from_dataset(dataset),
            type(recipe).from_dict({**recipe.to_dict(), "epochs": EPOCHS}),
            seed=0,
            checkpoint=folder / "checkpoint.safetensors",
        )
        network.save(folder / "network")
    return architecture.load(folder / "network")


def _accuracies(
    folder: Path, network: IntegralNetwork, dataset: Dataset, space: SearchSpace
) -> NDArray[np.float64]:
    samples = Task.from_dataset(dataset).split("validation")
    calibration = Task.from_dataset(dataset).recalibration_samples(NUM_CALIBRATION)
    found: list[float] = []
    for number, part in enumerate(np.array_split(space.points(), len(space.points()) // PART)):
        path = folder / f"accuracy-{number}.json"
        if not path.exists():
            print(f"accuracies, part {number}", file=sys.stderr)
            modules = (
                sample_candidate(network, space.from_key(key), calibration) for key in part.tolist()
            )
            write_json(path, [count_correct(module, samples) / len(samples) for module in modules])
        found += read_json(path)
    return np.array(found)


def _latencies(
    folder: Path,
    network: IntegralNetwork,
    dataset: Dataset,
    space: SearchSpace,
    device: DeviceBudget,
) -> list[dict[str, Any]]:
    """Parts of the space in random order, each measured interleaved: {"rows": {index: ms},
    "environment": ...}.
    """
    points = space.points()
    order = np.random.default_rng(0).permutation(len(points))
    references = order[:NUM_REFERENCE_CONFIGURATIONS]
    rest = order[NUM_REFERENCE_CONFIGURATIONS:]
    if device is not DEVICES[0]:
        index = {tuple(point): i for i, point in enumerate(points.tolist())}
        first = [index[space.key(one)] for one in initial_design(space, NUM_INITIAL_WIDTHS)]
        rest = np.array(
            [i for i in dict.fromkeys([*first, *rest]) if i not in references][:NUM_OF_LAST]
        )
    template: OnnxTemplate | None = None
    found = []
    for number, part in enumerate(np.array_split(rest, max(1, round(len(rest) / PART)))):
        path = folder / f"latency-{device.name}-{number}.json"
        if not path.exists():
            print(f"{device.name}, part {number}", file=sys.stderr)
            template = template or template_for(network, dataset)
            measured = _measure(folder, network, space, [*references, *part], device, template)
            write_json(path, measured)
        found.append(read_json(path))
    return found


def _measure(
    folder: Path,
    network: IntegralNetwork,
    space: SearchSpace,
    indices: Sequence[int],
    device: DeviceBudget,
    template: OnnxTemplate,
) -> dict[str, Any]:
    points = space.points()
    models = {}
    for index in indices:
        path = folder / "onnx" / f"{index}.onnx"
        if not path.exists():
            widths = space.from_key(points[index].tolist())
            template.export(network.discretize(widths).eval(), path, widths=widths)
        models[str(index)] = path
    measured = measure(models, device, config=BENCHMARK_CONFIG)
    environment = next(iter(measured.values())).environment
    return {
        "rows": {name: one.summary.at_percentile for name, one in measured.items()},
        "contended_fraction": environment["contended_fraction"],
        "environment": environment,
    }


def template_for(network: IntegralNetwork, dataset: Dataset) -> OnnxTemplate:
    """The exporter of a network, for any widths."""
    return OnnxTemplate.from_modules(
        network.discretize(network.full_widths).eval(),
        network.discretize(network.smallest_widths).eval(),
        input_shape=dataset.input_shape,
        mean=dataset.mean,
        std=dataset.std,
        samples=np.asarray(dataset.x[dataset.validation[:4]], dtype=np.float32),
    )


def _joined(parts: Sequence[dict[str, Any]], num: int) -> NDArray[np.float64]:
    """All parts on one scale: what slowed a whole part is seen on the references, which every part
    measured.
    """
    references = (
        set.intersection(*(set(part["rows"]) for part in parts)) if len(parts) > 1 else set()
    )
    usual = {name: float(np.median([part["rows"][name] for part in parts])) for name in references}
    latency = np.full(num, np.nan)
    for part in parts:
        scale = (
            float(np.median([part["rows"][name] / usual[name] for name in references]))
            if references
            else 1.0
        )
        for name, value in part["rows"].items():
            latency[int(name)] = usual.get(name, value / scale)
    return latency
