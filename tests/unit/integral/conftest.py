from __future__ import annotations

import pytest

from inn_automl.integral import IntegralNetwork
from inn_automl.integral.graph.groups import Coupling
from tests.unit.integral.two_groups import X, make


@pytest.fixture(scope="session")
def coupling() -> Coupling:
    return IntegralNetwork(make(), X).coupling


@pytest.fixture
def network(coupling: Coupling) -> IntegralNetwork:
    return IntegralNetwork(make(), X, coupling=coupling)
