"""Templates, which are slow to make, once for all tests."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from inn_automl.export import OnnxTemplate
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
    return OnnxTemplate(module, other, input_shape=SHAPE, mean=MEAN, std=STD, samples=samples)
