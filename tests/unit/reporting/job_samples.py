"""A finished job as the pipeline leaves it: its fronts over six coupled groups, bundles and
learning curves.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from inn_automl.core.result import (
    Candidate,
    CostModelErrors,
    DeviceResult,
    FrontPoint,
    JobResult,
    LatencySummary,
    LayerTime,
)

GROUPS = {"stem": 16, "stage1": 16, "stage2": 32, "stage3": 64, "stage3.block0": 64, "head": 128}
NUM_TEST = 1000


def make_job(
    out: Path | None = None,
    *,
    devices: dict[str, dict[str, Any]] | None = None,
    num_candidates: int = 200,
    num_points: int = 15,
    epochs: int = 20,
    seed: int = 0,
) -> tuple[JobResult, dict[str, list[Candidate]], list[dict[str, Any]]]:
    """A result, each device's candidates, and the training history; with bundles under `out` where
    it is given.
    """
    random = np.random.default_rng(seed)
    devices = devices or {
        "laptop-1-thread": {"threads": 1, "max_latency_ms": 1.2},
        "laptop-2-threads": {"threads": 2, "max_latency_ms": 0.6},
    }
    population = Population.draw(num_candidates, random)
    size = population.macs / population.macs.max()
    all_devices, all_candidates = [], {}
    for name, budget in devices.items():
        noise = random.normal(1, 0.03, num_candidates)
        latency = (0.11 + 2.0 * size / budget["threads"] ** 0.8) * noise
        points = [
            _point(k, population, i, latency[i], name, random, out)
            for k, i in enumerate(population.front(latency, num_points))
        ]
        all_candidates[name] = population.candidates(latency, points, random)
        all_devices.append(_device(name, budget, latency, points, random))
    return (
        JobResult(job=_job(list(devices), epochs), devices=all_devices),
        all_candidates,
        _history(epochs),
    )


@dataclass(frozen=True)
class Population:
    """Widths of a network (n, 6) with their costs and accuracies (n)."""

    widths: np.ndarray
    macs: np.ndarray
    params: np.ndarray
    accuracy: np.ndarray

    @classmethod
    def draw(cls, num: int, random: np.random.Generator) -> Population:
        """Three uniform widths, then random ones; accuracy grows with the operations."""
        uniform = [[0.25] * 6, [0.6] * 6, [1.0] * 6]
        ratios = np.concatenate([uniform, random.uniform(0.25, 1, (num - 3, 6))])
        widths = np.maximum(1, np.round(ratios * np.array(list(GROUPS.values())))).astype(int)
        stem, stage1, stage2, stage3, block, head = widths.T
        macs = (
            9 * 784 * stem * stage1
            + 9 * 196 * stage1 * stage2
            + 9 * 49 * stage2 * stage3 * block / 8
            + block * head * 10
        )
        params = 9 * (stem + stem * stage1 + stage1 * stage2 + stage2 * stage3) + block * head * 10
        size = macs / macs.max()
        accuracy = 0.985 - 0.12 * np.exp(-5.5 * size) - 0.02 * np.abs(random.normal(size=num))
        return cls(widths, macs, params, np.round(np.clip(accuracy, 0.1, 1) * 500) / 500)

    def named_widths(self, index: int) -> dict[str, int]:
        return dict(zip(GROUPS, map(int, self.widths[index]), strict=True))

    def front(self, latency: np.ndarray, num_points: int) -> list[int]:
        """At most so many of the candidates that no faster one equals in accuracy."""
        order, accuracy = np.argsort(latency), self.accuracy
        front = [
            i for rank, i in enumerate(order) if accuracy[i] > accuracy[order[:rank]].max(initial=0)
        ]
        kept = np.unique(np.linspace(0, len(front) - 1, num_points).astype(int))
        return [int(front[i]) for i in kept]

    def candidates(
        self, latency: np.ndarray, points: list[FrontPoint], random: np.random.Generator
    ) -> list[Candidate]:
        measured = {tuple(point.widths.values()): point.latency_ms for point in points}
        return [
            Candidate(
                widths=self.named_widths(i),
                metric_value=self.accuracy[i],
                params=int(self.params[i]),
                macs=int(self.macs[i]),
                measured=measured.get(tuple(map(int, self.widths[i]))),
                predicted_latency_ms=latency[i] * random.normal(1, 0.04),
            )
            for i in range(len(latency))
        ]


def _device(
    name: str,
    budget: dict[str, Any],
    latency: np.ndarray,
    points: list[FrontPoint],
    random: np.random.Generator,
) -> DeviceResult:
    bound = budget["max_latency_ms"]
    within = [point for point in points if point.latency_ms.ci[1] <= bound]
    fastest_ms = points[0].latency_ms.at_percentile
    fractions = (0.02, 0.3, 0.25, 0.2, 0.11, 0.07, 0.05)
    return DeviceResult(
        name=name,
        recommended=within[-1].id if within else None,
        recommendation=f"The most accurate of {len(within)} points that meet {bound} ms at p95."
        if within
        else f"No point meets {bound} ms: the fastest takes {fastest_ms:.3g} ms.",
        cost_model_errors=CostModelErrors(
            median_relative=0.031,
            p90_relative=0.08,
            spearman=0.985,
            num_fitted=32,
            num_held_out=36,
            held_out_ms=[(float(ms), float(ms * random.normal(1, 0.045))) for ms in latency[:36]],
        ),
        hypervolume=[float(v) for v in np.round(2 - 0.6 * np.exp(-0.4 * np.arange(20)), 4)],
        reference_point=(2.6, 0.1),
        search_stopped="hypervolume grew by less than 0.1 % in 5 batches",
        environment={
            "runtime": "onnxruntime",
            "runtime_version": "1.32.0",
            "cpu": "Example CPU @ 2.9 GHz",
        },
        budget={
            "name": name,
            "runtime": "onnxruntime-cpu",
            "batch_size": 1,
            "percentile": 95.0,
            **budget,
        },
        front=points,
        layers=[
            LayerTime(name=f"body.{layer}", fraction=fraction)
            for layer, fraction in zip(("stem.0", *GROUPS), fractions, strict=True)
        ],
    )


def _history(epochs: int) -> list[dict[str, Any]]:
    """One mapping an epoch: values rise, the loss falls."""
    return [
        {
            "epoch": e,
            "epochs": epochs,
            "train_loss": float(2.3 * np.exp(-0.25 * e) + 0.05),
            "score": 0.0,
            "seconds": 4.0,
            "metric_values": {
                "smallest": float(0.93 - 0.8 * np.exp(-0.22 * e)),
                "middle": float(0.965 - 0.8 * np.exp(-0.35 * e)),
                "full": float(0.982 - 0.8 * np.exp(-0.45 * e)),
            },
        }
        for e in range(1, epochs + 1)
    ]


def _job(devices: list[str], epochs: int) -> dict[str, Any]:
    """What the result says of the job itself."""
    return {
        "spec": {"dataset": "mnist5k", "model": None, "seed": 0, "budget": {"devices": devices}},
        "model": "convnet",
        "recipe": {"optimizer": "sgd", "learning_rate": 0.1, "epochs": epochs},
        "dataset": {
            "name": "mnist5k",
            "fingerprint": "9f2c" * 16,
            "num_classes": 10,
            "input_shape": [1, 28, 28],
            "num_train": 3500,
            "num_validation": 500,
            "num_test": NUM_TEST,
        },
        "seconds": {"training": 80.1, "searching": 40.2, "measuring": 30.3},
        "versions": {"torch": "2.13.0", "onnxruntime": "1.32.0"},
    }


def _point(
    rank: int,
    population: Population,
    index: int,
    latency: float,
    device: str,
    random: np.random.Generator,
    out: Path | None,
) -> FrontPoint:
    accuracy, params = population.accuracy[index], population.params[index]
    test = round((accuracy + random.normal(-0.002, 0.004)) * NUM_TEST) / NUM_TEST
    half = 1.96 * np.sqrt(test * (1 - test) / NUM_TEST)
    bundle = f"bundles/{device}/{rank:02d}.zip"
    if out is not None:
        write_bundle(out / bundle, num_features=int(population.widths[index, 0]))
    return FrontPoint(
        id=f"{device}-{rank:02d}",
        widths=population.named_widths(index),
        metric_value=accuracy,
        test_metric_value=test,
        test_metric_value_ci=(test - half, min(1.0, test + half)),
        latency_ms=LatencySummary(
            p50=0.93 * latency,
            p95=latency,
            p99=1.2 * latency,
            percentile=95.0,
            at_percentile=latency,
            ci=(latency * 0.975, latency * 1.03),
            num_samples=2000,
        ),
        params=int(params),
        macs=int(population.macs[index]),
        size_bytes=int(4 * params + 3000),
        bundle=bundle,
    )


def write_bundle(path: Path, *, num_features: int) -> None:
    """A ZIP with a real ONNX graph: logits of a linear layer over images of one channel."""
    weights = np.full((784, 10), 1 / num_features, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", model.SerializeToString())
        archive.writestr(
            "config.json", json.dumps({"classes": [str(digit) for digit in range(10)]})
        )
