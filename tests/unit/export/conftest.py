"""Templates, which are slow to make, once for all tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inn_automl.export import BundleConfig, OnnxTemplate, write_bundle, write_elastic
from inn_automl.integral import IntegralNetwork
from inn_automl.integral.batch_norm import recalibrate_batch_norm
from tests.unit.export.networks import MEAN, SHAPE, STD, Mixed, Small


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.uint8)


@pytest.fixture(scope="session")
def mixed_template(samples: np.ndarray) -> OnnxTemplate:
    return _template(Mixed(16, 12, 10, seed=1), Mixed(5, 3, 4, seed=2), samples)


@pytest.fixture(scope="session")
def small_template(samples: np.ndarray) -> OnnxTemplate:
    return _template(Small(8), Small(4), samples)


def _template(module: nn.Module, other: nn.Module, samples: np.ndarray) -> OnnxTemplate:
    return OnnxTemplate.from_modules(
        module, other, input_shape=SHAPE, mean=MEAN, std=STD, samples=samples
    )


@dataclass(frozen=True)
class Front:
    """Three points of one network: as bundles, and as elastic.zip. Wider ones are more accurate
    and slower.
    """

    network: Path
    bundles: dict[str, Path]
    elastic: Path


POINTS = {"a" * 12: (0.25, 0.80, 1.0), "b" * 12: (0.6, 0.90, 2.0), "c" * 12: (1.0, 0.95, 4.0)}
"""Share of the widths, validation accuracy, measured latency in milliseconds."""


@pytest.fixture(scope="session")
def front(
    mixed_template: OnnxTemplate, samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Front:
    return _front(
        IntegralNetwork(Mixed(16, 12, 10, seed=1), torch.zeros(2, *SHAPE)).eval(),
        mixed_template,
        samples,
        tmp_path_factory.mktemp("front"),
    )


@pytest.fixture(scope="session")
def width_conditioned_front(
    mixed_template: OnnxTemplate, samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Front:
    """The same of a network whose weights depend on the width."""
    network = IntegralNetwork(Mixed(16, 12, 10, seed=1), torch.zeros(2, *SHAPE)).eval()
    network.add_width_deltas()
    for seed, width_delta in enumerate(network.width_deltas):
        width_delta.data = 0.1 * torch.randn(
            width_delta.shape, generator=torch.Generator().manual_seed(seed)
        )
    return _front(network, mixed_template, samples, tmp_path_factory.mktemp("width_conditioned"))


def _front(
    network: IntegralNetwork, mixed_template: OnnxTemplate, samples: np.ndarray, folder: Path
) -> Front:
    """Measured on two devices: all points on the laptop, the fastest on the phone."""
    network.save(folder / "network")
    bundles = {}
    for name, (share, accuracy, latency_ms) in POINTS.items():
        widths = network.uniform_widths(share)
        module = network.discretize(widths)
        recalibrate_batch_norm(
            module, [torch.from_numpy((samples - MEAN[:, None, None]) / STD[:, None, None])]
        )
        export = mixed_template.export(module.eval(), folder / f"{name}.onnx", widths=widths)
        devices = {"laptop": 1.0, "phone": 10.0} if name[0] == "a" else {"laptop": 1.0}
        config = make_config(
            name, widths, accuracy, {device: latency_ms * k for device, k in devices.items()}
        )
        bundles[name] = folder / f"{name}.zip"
        write_bundle(bundles[name], config, onnx=export.path, weights=module.state_dict())
    write_elastic(folder / "elastic.zip", list(bundles.values()), folder / "network")
    return Front(folder / "network", bundles, folder / "elastic.zip")


def make_config(
    name: str, widths: dict[str, int], accuracy: float, latency_ms: dict[str, float]
) -> BundleConfig:
    return BundleConfig.model_validate(
        {
            "id": name,
            "family": "mixed",
            "build": {"input_shape": SHAPE, "num_classes": 3, "width": 1.0, "depth": None},
            "widths": widths,
            "classes": ("one", "two", "three"),
            "input": {"name": "input", "shape": SHAPE},
            "output": {"name": "logits", "shape": (3,)},
            "preprocessing": {"mean": tuple(MEAN.tolist()), "std": tuple(STD.tolist())},
            "dataset": {"name": "noise", "fingerprint": "0" * 64},
            "metric": {
                "name": "accuracy",
                "unit": "",
                "validation": accuracy,
                "test": 0.88,
                "test_ci": (0.85, 0.91),
                "num_test_samples": 500,
            },
            "params": 123,
            "macs": 4567,
            "latency": {
                device: {
                    "runtime": "onnxruntime-cpu",
                    "threads": 1,
                    "batch_size": 1,
                    "latency_ms": {
                        "p50": 0.8 * ms,
                        "p95": ms,
                        "p99": 2 * ms,
                        "ci": (0.9 * ms, 1.1 * ms),
                        "percentile": 95.0,
                        "at_percentile": ms,
                        "num_samples": 1000,
                    },
                    "environment": {"cpu": device},
                }
                for device, ms in latency_ms.items()
            },
            "verification": {"max_difference": 1e-7, "tolerance": 1e-4, "num_samples": 4},
        }
    )
