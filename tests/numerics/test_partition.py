from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inn_automl.core.errors import CorruptFileError, WidthsError
from inn_automl.integral import CellAverages, Nested, Partition, Trainable, Uniform
from inn_automl.integral.sampling.interpolation import CubicConvolution, Linear, Nearest
from inn_automl.integral.sampling.partition import Sampling, partition_from_json, van_der_corput
from inn_automl.integral.sampling.quadrature import GaussLegendre, Riemann, Simpson, Trapezoid

DTYPE = torch.float64
SIZES = st.integers(1, 30).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m)))
FIXED: list[Partition] = [
    Nested(),
    Nested("van_der_corput"),
    Uniform(),
    Uniform(Linear(), Riemann()),
    Uniform(Nearest(), Simpson()),
    Uniform(CubicConvolution(), GaussLegendre(2)),
    CellAverages(),
    CellAverages(Linear()),
    CellAverages(CubicConvolution()),
]


def dense(sampling: Sampling, *, integrate: bool = False) -> Tensor:
    """The (n, m) matrix of a sampling, by sampling every node alone."""
    return sampling.apply(
        torch.eye(sampling.num_control_points, dtype=DTYPE), 0, integrate=integrate
    )


@pytest.mark.parametrize("partition", FIXED, ids=str)
@given(sizes=SIZES)
def test_samples_of_a_constant(partition: Partition, sizes: tuple[int, int]) -> None:
    num_control_points, num_channels = sizes
    sampling = partition.sampling(num_control_points, num_channels)
    matrix = dense(sampling)
    assert matrix.shape == (num_channels, num_control_points)
    torch.testing.assert_close(matrix.sum(1), torch.ones(num_channels, dtype=DTYPE))
    # The integral of 1, in units in which a node is worth 1: over [0, n/m] for the nested
    # partition in order.
    total = num_channels if partition == Nested() else num_control_points
    assert float(dense(sampling, integrate=True).sum()) == pytest.approx(total)


@pytest.mark.parametrize("partition", FIXED, ids=str)
@given(sizes=SIZES, dim=st.integers(0, 2))
def test_any_dimension_of_any_tensor(
    partition: Partition, sizes: tuple[int, int], dim: int
) -> None:
    num_control_points, num_channels = sizes
    sampling = partition.sampling(num_control_points, num_channels)
    values = torch.rand([num_control_points if i == dim else i + 2 for i in range(3)], dtype=DTYPE)
    for integrate in (False, True):
        expected = torch.tensordot(
            dense(sampling, integrate=integrate), values, ([1], [dim])
        ).movedim(0, dim)
        torch.testing.assert_close(sampling.apply(values, dim, integrate=integrate), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("partition", FIXED, ids=str)
def test_any_type(partition: Partition, dtype: torch.dtype) -> None:
    values = torch.rand(9, 4)
    sampling = partition.sampling(9, 5)
    found = sampling.to(values.device, dtype).apply(values.to(dtype), 0, integrate=True)
    assert found.dtype == dtype
    tolerance = 1e-6 if dtype in (torch.float32, torch.float64) else 4e-2
    expected = sampling.apply(values.double(), 0, integrate=True)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "partition",
    [p for p in FIXED if p not in (Uniform(CubicConvolution(), GaussLegendre(2)), *FIXED[-2:])],
    ids=str,
)
@given(num_control_points=st.integers(1, 30))
def test_samples_at_full_width_are_the_nodes(partition: Partition, num_control_points: int) -> None:
    sampling = partition.sampling(num_control_points, num_control_points)
    torch.testing.assert_close(dense(sampling), torch.eye(num_control_points, dtype=DTYPE))
    assert sampling.is_identity == isinstance(partition, Nested | CellAverages)


@pytest.mark.parametrize("order", ["first", "van_der_corput"])
@given(num_control_points=st.integers(1, 100))
def test_nested_partitions_are_nested(order: str, num_control_points: int) -> None:
    nodes = torch.arange(num_control_points)
    smaller: set[int] = set()
    for num_channels in range(1, num_control_points + 1):
        picked = (
            Nested(order)
            .sampling(num_control_points, num_channels)
            .apply(nodes, 0, integrate=False)
            .tolist()
        )
        assert picked == sorted(set(picked))
        assert len(picked) == num_channels
        assert smaller < set(picked)
        smaller = set(picked)


@given(num_control_points=st.integers(1, 200))
def test_van_der_corput_order_spans_the_nodes_at_every_length(num_control_points: int) -> None:
    order = van_der_corput(num_control_points)
    assert sorted(order) == list(range(num_control_points))
    for length in range(1, num_control_points + 1):
        # A power of two of picks, at least half of all, stands in every cell of that number of
        # equal cells.
        spacing = (
            2 ** (math.ceil(math.log2(num_control_points)) - math.floor(math.log2(length)))
            if num_control_points > 1
            else 1
        )
        picked = sorted(order[:length])
        gaps = [b - a for a, b in zip([-1, *picked], [*picked, num_control_points], strict=False)]
        assert max(gaps) <= spacing


def test_unknown_order_of_a_nested_partition() -> None:
    with pytest.raises(ValueError, match="van_der_corput"):
        Nested("random")


@pytest.mark.parametrize("rule", [Nearest(), Linear(), CubicConvolution()], ids=str)
@given(sizes=SIZES)
def test_cell_averages_keep_the_mean(rule: Nearest, sizes: tuple[int, int]) -> None:
    num_control_points, num_channels = sizes
    values = torch.rand(num_control_points, dtype=DTYPE)
    partition = CellAverages(rule)
    mean = (
        partition.sampling(num_control_points, num_channels)
        .apply(values, 0, integrate=False)
        .mean()
    )
    torch.testing.assert_close(
        mean, partition.sampling(num_control_points, 1).apply(values, 0, integrate=False)[0]
    )
    if isinstance(rule, Nearest):
        torch.testing.assert_close(mean, values.mean())


def test_cell_averages_of_whole_cells() -> None:
    averages = CellAverages().sampling(6, 3).apply(torch.arange(6, dtype=DTYPE), 0, integrate=False)
    assert averages.tolist() == pytest.approx([0.5, 2.5, 4.5])
    averages = (
        CellAverages()
        .sampling(3, 2)
        .apply(torch.tensor([0.0, 3.0, 6.0], dtype=DTYPE), 0, integrate=False)
    )
    assert averages.tolist() == pytest.approx([1, 5])


@pytest.mark.parametrize(
    ("partition", "order"),
    [
        (Uniform(CubicConvolution(), Trapezoid()), 2),
        (Uniform(CubicConvolution(), Simpson()), 4),
        (Uniform(CubicConvolution(), GaussLegendre(2)), 4),
        # equal weights, but the ends are points: half a cell too much
        (Uniform(CubicConvolution(), Riemann()), 1),
        (CellAverages(), 2),
    ],
    ids=str,
)
def test_a_layer_converges_to_its_integral(partition: Partition, order: int) -> None:
    """F_O(y) = int_0^1 F_W(y, x) F_I(x) dx with a known kernel, on more and more samples."""
    num_control_points = 4097  # so dense that only the quadrature is seen
    centred = isinstance(partition, CellAverages)
    nodes = torch.arange(num_control_points, dtype=DTYPE)
    x = (nodes + 0.5) / num_control_points if centred else nodes / (num_control_points - 1)
    # (outputs, inputs)
    kernel = torch.cos(2 * x)[None] * torch.tensor([[1.0], [2.0]], dtype=DTYPE)
    signal = x.exp()
    # int_0^1 cos(2x) e^x dx = [e^x (cos 2x + 2 sin 2x) / 5]_0^1
    exact = (math.e * (math.cos(2) + 2 * math.sin(2)) - 1) / 5
    errors = []
    for num_channels in (17, 33, 65):
        sampling = partition.sampling(num_control_points, num_channels)
        weight = sampling.apply(kernel, 1, integrate=True) / num_control_points
        output = weight @ sampling.apply(signal, 0, integrate=False)
        torch.testing.assert_close(output[1], 2 * output[0])
        errors.append(abs(float(output[0]) - exact))
    assert math.log2(errors[0] / errors[-1]) / 2 == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("partition", "order"),
    [
        (Uniform(Nearest(), GaussLegendre(1)), 1),
        (Uniform(Linear(), GaussLegendre(2)), 2),
        (Uniform(CubicConvolution(), GaussLegendre(3)), 3),
    ],
    ids=str,
)
def test_where_nodes_get_denser_the_interpolation_sets_the_order(
    partition: Uniform, order: int
) -> None:
    """The quadrature's order is above the interpolation's, and the samples stand at other places
    than the nodes.
    """
    errors = []
    for num_control_points in (65, 129, 257, 513):
        x = torch.arange(num_control_points, dtype=DTYPE) / (num_control_points - 1)
        sampling = partition.sampling(num_control_points, num_control_points // 3)
        points = partition.quadrature.rule(num_control_points // 3)[0]
        errors.append(
            float(
                (sampling.apply((2 * x).exp(), 0, integrate=False) - (2 * points).exp()).abs().max()
            )
        )
    assert math.log2(errors[0] / errors[-1]) / 3 == pytest.approx(order, abs=0.15)


@given(delta=st.lists(st.floats(-3, 3).filter(lambda d: abs(d) > 1e-3), min_size=1, max_size=10))
def test_learned_points_are_ordered_and_span_the_interval(delta: list[float]) -> None:
    partition = Trainable(len(delta) + 1)
    with torch.no_grad():
        partition.delta.copy_(torch.tensor(delta))
    points = partition.points()
    assert float(points[0].detach()) == 0
    assert float(points[-1].detach()) == 1
    assert bool((points.diff() >= 0).all())


def test_learned_points_start_evenly() -> None:
    torch.testing.assert_close(Trainable(5).points(), torch.linspace(0, 1, 5))


@pytest.mark.parametrize("interpolation", [Linear(), CubicConvolution()], ids=str)
@pytest.mark.parametrize("quadrature", [Riemann(), Trapezoid()], ids=str)
def test_gradients_of_learned_partitions(interpolation: Linear, quadrature: Trapezoid) -> None:
    partition = Trainable(5, interpolation, quadrature).double()
    delta = torch.tensor([0.6, 0.3, 0.8, 0.45], dtype=DTYPE, requires_grad=True)
    nodes = torch.rand(8, 3, dtype=DTYPE, requires_grad=True)

    def samples(delta: Tensor, nodes: Tensor) -> Tensor:
        del partition.delta
        partition.delta = delta  # type: ignore[assignment]
        return partition.sampling(8, 5).apply(nodes, 0, integrate=True)

    assert torch.autograd.gradcheck(samples, (delta, nodes))


@given(num_channels=st.integers(2, 200))
def test_a_learned_partition_begins_at_its_nodes(num_channels: int) -> None:
    """With equal weights, sampling `n` nodes at `n` points changes nothing until it learns."""
    sampling = (
        Trainable(num_channels, has_factors=True).double().sampling(num_channels, num_channels)
    )
    for integrate in (False, True):
        torch.testing.assert_close(
            dense(sampling, integrate=integrate),
            torch.eye(num_channels, dtype=DTYPE),
            rtol=0,
            atol=1e-4,
        )


def test_gradients_of_learned_factors() -> None:
    partition = Trainable(5, has_factors=True).double()
    delta = torch.tensor([0.6, 0.3, 0.8, 0.45], dtype=DTYPE, requires_grad=True)
    factors = torch.tensor([1.1, 0.7, 1.0, 0.9, 1.3], dtype=DTYPE, requires_grad=True)
    nodes = torch.rand(5, 3, dtype=DTYPE, requires_grad=True)

    def samples(delta: Tensor, factors: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        del partition.delta, partition.factors
        partition.delta, partition.factors = delta, factors  # type: ignore[assignment]
        sampling = partition.sampling(5, 5)
        return sampling.apply(nodes, 0, integrate=True), sampling.apply(nodes, 0, integrate=False)

    assert torch.autograd.gradcheck(samples, (delta, factors, nodes))


def test_sizes_that_a_partition_does_not_have() -> None:
    for partition in FIXED:
        for num_channels in (0, 6):
            with pytest.raises(WidthsError, match="give 1 to 5"):
                partition.sampling(5, num_channels)
    with pytest.raises(WidthsError, match="has 4 points, 3 were requested"):
        Trainable(4).sampling(5, 3)
    with pytest.raises(WidthsError, match="give 2 or more"):
        Trainable(1)


@pytest.mark.parametrize(
    "partition",
    [*FIXED, Trainable(7, CubicConvolution(), Trapezoid()), Trainable(7, has_factors=True)],
    ids=lambda p: type(p).__name__,
)
def test_description_round_trip(partition: Partition) -> None:
    again = partition_from_json(partition.to_json())
    assert again.to_json() == partition.to_json()
    assert isinstance(partition, Trainable) or again == partition


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"rule": "spline"},
        {"rule": "nested", "order": "random"},
        {"rule": "uniform", "interpolation": "Quintic", "quadrature": {"rule": "Riemann"}},
        {
            "rule": "uniform",
            "interpolation": "Linear",
            "quadrature": {"rule": "Riemann", "points": 3},
        },
        {
            "rule": "trainable",
            "num_channels": 4,
            "interpolation": "Linear",
            "quadrature": {"rule": "Simpson"},
        },
    ],
)
def test_descriptions_of_no_partition(value: dict[str, object]) -> None:
    with pytest.raises(CorruptFileError, match="save the network again"):
        partition_from_json(value)
