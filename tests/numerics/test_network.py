"""What integral networks compute, against what they promise and against finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Trainable, Uniform
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.sampling.interpolation import CubicConvolution, Linear
from inn_automl.integral.sampling.quadrature import GaussLegendre, Riemann, Simpson, Trapezoid
from inn_automl.models import FAMILIES, build

NODE_PARTITIONS = [
    Nested(),
    Nested("van_der_corput"),
    CellAverages(),
    Uniform(),
    Uniform(Linear(), Riemann()),
    Uniform(CubicConvolution(), Simpson()),
]


def small(family: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    shape = (1, 8, 8) if "image" in FAMILIES[family].kinds else (1, 32)
    about = FAMILIES[family]
    scale = 2 if "super-resolution" in about.tasks else None
    width = 0.5 if family == "vit" else 0.25  # two heads: one alone is not resized
    module = build(
        family, shape, 3, width=width, depth=about.depths[0], task=about.tasks[0], scale=scale
    )
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 1.5)
    return module.eval(), torch.randn(2, *shape)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def followed(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Coupling]:
    module, x = small(request.param)
    network = IntegralNetwork(module, x)
    # What a pixel shuffle makes an image of keeps its size.
    assert [one.module for one in network.frozen] == (["tail"] if request.param == "edsr" else [])
    return module, x, network.coupling


def test_every_family_at_full_width_is_the_module(
    followed: tuple[nn.Module, Tensor, Coupling],
) -> None:
    module, x, coupling = followed
    with torch.no_grad():
        expected = module(x)
        for partition in NODE_PARTITIONS:
            network = IntegralNetwork(module, x, partition=partition, coupling=coupling).eval()
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
            plain = network.discretize(network.full_widths).eval()
            torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=1e-4)


def test_every_family_trains_at_every_width(followed: tuple[nn.Module, Tensor, Coupling]) -> None:
    module, x, coupling = followed
    for partition in (*NODE_PARTITIONS, Uniform(CubicConvolution(), GaussLegendre(2))):
        network = IntegralNetwork(module, x, partition=partition, coupling=coupling).train()
        for widths in (None, network.smallest_widths, network.uniform_widths(0.6)):
            network.zero_grad()
            network(torch.cat([x, -x]), widths).square().sum().backward()
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name


def smooth_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 5, 3, padding=1),
        nn.BatchNorm1d(5),
        nn.Tanh(),
        nn.Conv1d(5, 6, 3, groups=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(24, 2),
    ).double()


@pytest.mark.parametrize(
    "partition",
    [
        Nested(),
        Nested("van_der_corput"),
        CellAverages(CubicConvolution()),
        Uniform(),
        Uniform(Linear(), GaussLegendre()),
    ],
    ids=str,
)
def test_gradients_in_the_nodes(partition: Partition) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 2, 6, dtype=torch.float64)
    network = IntegralNetwork(smooth_module(), x, partition=partition).eval()
    widths = {"0": 3, "3": 4}
    names = [name for name, _ in network.named_parameters()]

    def output(*nodes: Tensor) -> Tensor:
        with torch.no_grad():
            for name, value in zip(names, nodes, strict=True):
                network.get_parameter(name).copy_(value)
        return network(x, widths)

    check_gradients(network, output)


def test_gradients_in_learned_partitions() -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 2, 6, dtype=torch.float64)
    partitions = {"0": Trainable(3, CubicConvolution(), Trapezoid()), "3": Trainable(4)}
    network = IntegralNetwork(smooth_module(), x, partition=partitions).double().eval()
    with torch.no_grad():
        for partition in partitions.values():
            partition.delta.add_(torch.rand_like(partition.delta) * 0.3)

    def output(*values: Tensor) -> Tensor:
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), values, strict=True):
                parameter.copy_(value)
        return network(x, {"0": 3, "3": 4})

    assert len(list(network.trainable_partitions.parameters())) == 2
    check_gradients(network, output)


def test_gradients_through_every_family_at_reduced_widths(
    followed: tuple[nn.Module, Tensor, Coupling],
) -> None:
    """In nodes and in the places of learned partitions, with batch statistics; residual streams,
    depthwise and all.
    """
    module, x, coupling = followed
    torch.manual_seed(2)
    widths = {g.name: g.allowed[len(g.allowed) // 2] for g in coupling.groups}
    counts = dict(zip(widths, coupling.counts(widths), strict=True))
    rules = itertools.cycle([(Linear(), Riemann()), (CubicConvolution(), Trapezoid())])
    partitions = {name: Trainable(num, *next(rules)) for name, num in counts.items() if num > 1}
    network = IntegralNetwork(module, x, partition=partitions, coupling=coupling).double().train()
    inputs = torch.randn(4, *x.shape[1:], dtype=torch.float64)
    with torch.no_grad():
        for partition in partitions.values():
            partition.delta.add_(torch.rand_like(partition.delta) * 0.3)

    def output(*values: Tensor) -> Tensor:
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), values, strict=True):
                parameter.copy_(value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)  # the same masks each time
            return network(inputs, widths)

    assert len(list(network.trainable_partitions.parameters())) == len(partitions) > 0
    check_gradients(network, output, step=1e-7)  # seldom crosses the kink of an activation


def check_gradients(network: IntegralNetwork, output: object, step: float = 1e-6) -> None:
    """Derivatives along random directions against central differences."""
    assert callable(output)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    network.zero_grad()
    output(*start).sin().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    for _ in range(5):
        directions = [torch.randn_like(value) for value in start]
        with torch.no_grad():
            ahead, behind = (
                output(*(v + sign * step * d for v, d in zip(start, directions, strict=True)))
                .sin()
                .sum()
                for sign in (1, -1)
            )
        expected = (ahead - behind) / (2 * step)
        found = sum(
            (g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None
        )
        torch.testing.assert_close(torch.as_tensor(found), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("partition", "order"),
    [
        # equal weights, but the ends are points: half a cell too much
        (Uniform(CubicConvolution(), Riemann()), 1),
        (CellAverages(), 2),
        (Uniform(CubicConvolution(), Trapezoid()), 2),
        (Uniform(CubicConvolution(), Simpson()), 4),
        (Uniform(CubicConvolution(), GaussLegendre(2)), 4),
    ],
    ids=str,
)
def test_a_network_of_continuous_weights_converges_to_the_integral(
    partition: Partition, order: int
) -> None:
    """Two integral layers whose weights sample known functions: the output settles as the width
    grows.
    """
    nodes = 1025  # so dense that only the quadrature is seen
    grid = torch.arange(nodes, dtype=torch.float64)
    grid = (grid + 0.5) / nodes if isinstance(partition, CellAverages) else grid / (nodes - 1)
    module = nn.Sequential(nn.Linear(1, nodes), nn.Tanh(), nn.Linear(nodes, 1)).double()
    x = torch.tensor([[0.7], [-1.3]], dtype=torch.float64)
    with torch.no_grad():
        module[0].weight.copy_((1 + grid)[:, None])
        module[0].bias.copy_(torch.sin(3 * grid))
        module[2].bias.zero_()
        dense, weights = GaussLegendre(5).rule(1000)
        values = torch.tanh(x * (1 + dense) + torch.sin(3 * dense)) * (2 * dense).exp()
        exact = (values * weights).sum(1, keepdim=True)
    network = IntegralNetwork(module, x, partition=partition, min_ratio=0.001).eval()
    with torch.no_grad():
        # Set here, because the quadrature's weights at full width are taken out of a module's own
        # weights.
        network.module[2].weight.copy_((2 * grid).exp()[None] / nodes)
        sizes = (
            [8, 16, 32]
            if getattr(partition, "quadrature", None) == GaussLegendre(2)
            else [9, 17, 33]
        )
        errors = [float((network(x, {"0": width}) - exact).abs().max()) for width in sizes]
    assert math.log2(errors[0] / errors[-1]) / 2 == pytest.approx(order, abs=0.35)
