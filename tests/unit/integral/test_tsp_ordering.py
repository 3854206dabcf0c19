from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from inn_automl.core.errors import ModuleError, UnknownNameError
from inn_automl.integral import (
    CellAverages,
    IntegralNetwork,
    Partition,
    Uniform,
    convert,
    recalibrate_batch_norm,
)
from inn_automl.integral.conversion.channel_ranking import permute
from inn_automl.integral.conversion.tsp_ordering import (
    channel_distances,
    path_length,
    shortest_path,
    tsp_order,
)
from tests.unit.integral.oracle import assert_same, randomized
from tests.unit.integral.zoo import CASES


def distances(points: Tensor) -> Tensor:
    return torch.cdist(points.double(), points.double(), p=1)


@pytest.mark.parametrize("num", [1, 2, 3, 7])
def test_no_path_through_few_points_is_shorter(num: int) -> None:
    apart = distances(torch.randn(num, 3, generator=torch.Generator().manual_seed(0)))
    shortest = min(
        path_length(apart, torch.tensor(path)) for path in itertools.permutations(range(num))
    )
    found = shortest_path(apart)
    assert sorted(found.tolist()) == list(range(num))
    assert path_length(apart, found) == pytest.approx(shortest)


def test_points_of_a_curve_are_put_back_in_order() -> None:
    x = torch.linspace(0, 1, 100)
    shuffled = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    path = shortest_path(distances(torch.stack([x, torch.sin(3 * x), x.exp()], dim=1)[shuffled]))
    found = shuffled[path].tolist()
    assert found in (list(range(100)), list(range(99, -1, -1)))


def test_points_that_are_all_alike_stay_as_they_are() -> None:
    assert shortest_path(torch.zeros(5, 5)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.groups])
def test_every_coupled_structure_varies_less_along_its_path(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    network = IntegralNetwork(randomized(case.make()).eval(), case.example())
    apart, paths = channel_distances(network), tsp_order(network)
    before = [path_length(one, torch.arange(len(one))) for one in apart]
    permute(network, paths)
    after = [path_length(one, torch.arange(len(one))) for one in channel_distances(network)]
    assert after == pytest.approx(
        [path_length(*pair) for pair in zip(apart, paths.values(), strict=True)], rel=1e-6
    )
    assert all(a <= b * (1 + 1e-6) for a, b in zip(after, before, strict=True))


def twins() -> nn.Module:
    """Every channel twice, in no order."""
    module = nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    network = IntegralNetwork(randomized(module), torch.zeros(2, 2, 6, 6))
    permute(
        network,
        {name: torch.randperm(size) % (size // 2) for name, size in network.full_widths.items()},
    )
    return network.module.eval()


def test_along_a_path_twins_are_neighbours_and_averaged_without_loss() -> None:
    torch.manual_seed(0)
    module, x = twins(), torch.randn(64, 2, 6, 6)
    recalibrate_batch_norm(module, [x])
    network = convert(
        module.eval(), x[:2], samples=x, order="tsp", partition=CellAverages()
    ).network
    small = network.discretize(network.uniform_widths(0.5))
    recalibrate_batch_norm(small, [x])
    with torch.no_grad():
        assert_same(small.eval()(x), module(x), 1e-4)


@pytest.mark.parametrize("partition", [None, CellAverages(), Uniform()], ids=str)
def test_the_full_width_along_a_path_computes_what_it_did(partition: Partition | None) -> None:
    torch.manual_seed(0)
    module, x = twins(), torch.randn(64, 2, 6, 6)
    converted = convert(module, x[:2], samples=x, order="tsp", partition=partition)
    with torch.no_grad():
        assert_same(converted.discretize(converted.network.full_widths)(x), module(x), 1e-4)
        small = converted.discretize(converted.network.uniform_widths(0.6))
        assert torch.isfinite(small(x)).all()


def test_orders_that_there_are_not() -> None:
    x = torch.randn(16, 2, 6, 6)
    with pytest.raises(UnknownNameError, match="unknown order 'tps': did you mean 'tsp'"):
        convert(twins(), x[:2], samples=x, order="tps")


def test_weights_that_are_not_finite() -> None:
    module = twins()
    with torch.no_grad():
        module.get_parameter("3.weight")[0] = torch.nan
    with pytest.raises(ModuleError, match=r"'3\.weight' holds numbers that are not finite"):
        tsp_order(IntegralNetwork(module, torch.zeros(2, 2, 6, 6)))
