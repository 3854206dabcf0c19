from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from inn_automl.core.errors import InputError
from inn_automl.integral import IntegralNetwork, convert, recalibrate_batch_norm
from inn_automl.integral.conversion.activations import capture_activations, consumers
from inn_automl.integral.conversion.channel_ranking import permute, pivoted_cholesky, rank_channels
from inn_automl.integral.conversion.reconstruction import (
    RECONSTRUCTION_RULES,
    Reconstructor,
    fit_width_deltas,
)
from inn_automl.integral.conversion.windows import choose_positions, rows_at, windows_at
from tests.unit.integral.oracle import assert_same, randomized
from tests.unit.integral.zoo import CASES, Net


@pytest.mark.parametrize("name", CASES)
def test_another_order_of_channels_computes_the_same(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module, x = randomized(case.make()).eval(), case.example()
    network = IntegralNetwork(module, x).eval()
    sizes = dict(zip(network.full_widths, network.coupling.full_counts(), strict=True))
    with torch.no_grad():
        expected = network(x)
        permute(network, {group: torch.randperm(size) for group, size in sizes.items()})
        assert_same(network(x), expected)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (5, 6)),
        (nn.Linear(6, 4), (5, 7, 6)),
        (nn.Conv1d(3, 4, 5, stride=2, padding=2), (5, 3, 11)),
        (nn.Conv2d(3, 4, 3, padding=1), (5, 3, 6, 7)),
        (
            nn.Conv2d(3, 4, (3, 1), stride=(2, 1), padding=(2, 0), dilation=(2, 1), bias=False),
            (5, 3, 9, 4),
        ),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (5, 3, 6, 6)),
        (nn.Conv2d(3, 4, 3, padding="same", dilation=2), (5, 3, 6, 6)),
        (nn.Conv2d(3, 4, 3, padding="valid"), (5, 3, 6, 6)),
        (nn.Conv3d(2, 3, 2, padding=1), (5, 2, 3, 4, 5)),
    ],
    ids=str,
)
def test_windows_are_what_a_layer_multiplies_its_weights_with(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    with torch.no_grad():
        y = layer(x)
        places = choose_positions(layer, y)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        found = windows_at(layer, x, places) @ weight.flatten(1).T
        if isinstance(bias, Tensor):
            found += bias
        torch.testing.assert_close(found, rows_at(layer, y, places), rtol=1e-4, atol=1e-5)


def test_pivoted_cholesky_is_column_pivoted_qr() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 12)) @ np.random.default_rng(
        1
    ).standard_normal((12, 12))
    expected = scipy.linalg.qr(rows, pivoting=True, mode="r")[1]
    assert pivoted_cholesky(torch.tensor(rows.T @ rows), 12).tolist() == expected.tolist()


def test_pivots_of_what_is_left_follow_energy() -> None:
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([rows, 0.5 * rows, 2 * rows], dim=1)  # nine columns of rank three
    order = pivoted_cholesky(twice.T @ twice, 9).tolist()
    assert set(order[:3]) == {6, 7, 8} and sorted(order) == list(range(9))
    assert {i % 3 for i in order[3:6]} == {0, 1, 2} and set(order[3:6]) == {0, 1, 2}


def test_units_are_taken_whole() -> None:
    gram = torch.diag(torch.tensor([9.0, 0.0, 4.0, 4.0, 5.0, 5.0]))
    assert pivoted_cholesky(gram, 3).tolist() == [2, 0, 1]


def residual() -> nn.Module:
    """Convolution, a residual block, a depthwise convolution, and a classifier on the flattened
    map.
    """
    return Net(
        lambda m, x: m.last(torch.flatten(m.deep(_block(m, torch.relu(m.norm(m.stem(x))))), 1)),
        stem=nn.Conv2d(2, 8, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(8),
        inner=nn.Conv2d(8, 8, 3, padding=1),
        outer=nn.Conv2d(8, 8, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(8),
        deep=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        last=nn.Linear(8 * 36, 3),
    )


def _block(m: nn.Module, x: Tensor) -> Tensor:
    return torch.relu(x + m.norm2(m.outer(torch.relu(m.inner(x)))))  # type: ignore[operator]


def doubled(module: nn.Module) -> nn.Module:
    """Every second half of a group's channels does what the first half does: half the width
    suffices.
    """
    network = IntegralNetwork(module, torch.zeros(2, 2, 6, 6), min_ratio=0.5)
    half = {name: size // 2 for name, size in network.full_widths.items()}
    copies = {name: torch.arange(size) % (size // 2) for name, size in network.full_widths.items()}
    permute(network, copies)  # not a permutation: channels are repeated
    assert half == network.smallest_widths
    return network.module


def test_channels_that_others_can_stand_for_are_not_missed() -> None:
    torch.manual_seed(0)
    module = doubled(randomized(residual())).eval()
    x = torch.randn(256, 2, 6, 6)
    recalibrate_batch_norm(module, [x])
    converted = convert(module.eval(), x[:2], samples=x, min_ratio=0.5)
    small = converted.discretize(converted.network.smallest_widths)
    with torch.no_grad():
        sampled = converted.network.discretize(converted.network.smallest_widths)
        recalibrate_batch_norm(sampled, [x])
        missed, fault = ((one.eval()(x) - module(x)).square().mean() for one in (sampled, small))
        assert fault < 1e-3 * missed and fault < 1e-3 * module(x).var()
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(
        p.numel() for p in module.parameters()
    )


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.input is None and case.groups]
)
def test_every_coupled_structure_is_fitted(name: str) -> None:
    """At full width nothing changes; at less, outputs come nearer to those of the full width, or
    stay.
    """
    case = CASES[name]
    torch.manual_seed(0)
    module = randomized(case.make()).eval()
    x = torch.randn(64, *case.shape[1:])
    network = IntegralNetwork(module, x[:2]).eval()
    fitted = Reconstructor.from_samples(network, x)
    with torch.no_grad():
        expected = network(x)
        assert_same(
            fitted.discretize(network.full_widths, RECONSTRUCTION_RULES[-1]).eval()(x),
            expected,
            1e-3,
        )
        widths = network.uniform_widths(0.5)
        small, sampled = (
            fitted.discretize(widths, RECONSTRUCTION_RULES[-1]).eval(),
            network.discretize(widths).eval(),
        )
        if isinstance(expected, Tensor):
            assert (small(x) - expected).square().mean() <= 1.05 * (
                sampled(x) - expected
            ).square().mean() + 1e-9


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.input is None and case.groups]
)
def test_with_fitted_width_deltas_the_smallest_widths_are_what_is_fitted(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    x = torch.randn(64, *case.shape[1:])
    network = IntegralNetwork(randomized(case.make()), x[:2]).eval()
    expected = dict(
        Reconstructor.from_samples(network, x)
        .discretize(network.smallest_widths)
        .named_parameters()
    )
    with torch.no_grad():
        full = network(x)
    network.add_width_deltas()
    fit_width_deltas(network, x)
    found = dict(network.discretize(network.smallest_widths).named_parameters())
    for name in network.named_width_deltas():
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert_same(network(x), full)


def saturations(module: nn.Module, x: Tensor) -> dict[str, tuple[float, float] | None]:
    network = IntegralNetwork(module.eval(), x[:2])
    return {
        path: one.saturation
        for path, one in capture_activations(network, x, consumers(network)).items()
    }


def test_only_what_an_activation_alone_sees_saturates() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    layers = {
        "a": nn.Linear(4, 8),
        "b": nn.Linear(8, 8),
        "n": nn.BatchNorm1d(8),
        "c": nn.Linear(8, 3),
    }

    def found(
        forward: Callable[[Net, Tensor], Tensor], **more: nn.Module
    ) -> tuple[float, float] | None:
        return saturations(Net(forward, **layers, **more), x)["b"]

    infinite = (0.0, float("inf"))
    assert found(lambda m, x: m.c(torch.relu(m.n(m.b(m.a(x)))))) == infinite
    assert found(lambda m, x: m.c(m.r(m.n(m.b(m.a(x))))), r=nn.ReLU(inplace=True)) == infinite
    assert found(lambda m, x: m.c(m.r(m.n(m.b(m.a(x))))), r=nn.ReLU6()) == (0.0, 6.0)
    assert found(lambda m, x: m.c(m.r(m.b(m.a(x)))), r=nn.Hardtanh(-2, 2)) == (-2.0, 2.0)
    assert found(lambda m, x: m.c(torch.nn.functional.gelu(m.b(m.a(x))))) is None
    assert found(lambda m, x: m.c(m.b(m.a(x)))) is None
    # Something else sees what is negative, too.
    assert found(lambda m, x: m.c(torch.relu(y := m.b(m.a(x))) + y)) is None
    assert found(lambda m, x: m.c(torch.relu(m.n(y := m.b(m.a(x)))) + y)) is None
    assert found(lambda m, x: m.c(torch.relu(y := m.n(m.b(m.a(x)))) + y)) is None


def test_a_layer_that_runs_twice_keeps_its_samples() -> None:
    torch.manual_seed(0)
    module = Net(
        lambda m, x: m.c(m.b(m.b(torch.relu(m.a(x))))),
        a=nn.Linear(4, 8),
        b=nn.Linear(8, 8),
        c=nn.Linear(8, 3),
    ).eval()
    x = torch.randn(64, 4)
    network = IntegralNetwork(module, x[:2])
    widths = network.smallest_widths
    found = Reconstructor.from_samples(network, x).discretize(widths)
    torch.testing.assert_close(found.b.weight, network.discretize(widths).b.weight)  # type: ignore[union-attr]


def test_the_order_is_that_of_what_later_layers_weigh() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(4, 6))
        module[1].weight.copy_(torch.tensor([[1.0, 0.0, 5.0, 0.1], [1.0, 0.0, 5.0, 0.1]]))
    network = IntegralNetwork(module, torch.zeros(2, 6))
    assert rank_channels(network, torch.randn(500, 6))["0"].tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.randn(15, 2, 6, 6), "15 samples were given: give at least 16"),
        (torch.randn(1, 2, 6, 6), "1 sample was given: give at least 16"),
        (torch.ones(64, 2, 6, 6), "all alike"),
        (torch.full((64, 2, 6, 6), float("nan")), "not finite"),
        (
            torch.randn(64, 3, 6, 6),
            r"cannot be run on .* torch.float32 of shape \(64, 3, 6, 6\) .*expected input",
        ),
        (torch.randn(64, 6, 6), r"of shape \(64, 6, 6\) .* give samples as the module takes them"),
        (torch.randn(64, 2, 6, 6).double(), r"torch\.float64 of shape \(64, 2, 6, 6\)"),
        (np.zeros((64, 2, 6, 6)), "are a ndarray: give one tensor"),
    ],
)
@pytest.mark.parametrize("order", ["pivoted_cholesky", "tsp"])
def test_samples_that_tell_nothing(samples: Tensor, message: str, order: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(residual(), torch.zeros(2, 2, 6, 6), samples=samples, order=order)


def test_a_module_that_makes_no_numbers() -> None:
    module = residual().eval()
    with torch.no_grad():
        module.get_parameter("inner.weight")[0] = torch.inf
    with pytest.raises(InputError, match="Net makes numbers of the samples that are not finite"):
        convert(module, torch.zeros(2, 2, 6, 6), samples=torch.randn(32, 2, 6, 6))


def test_samples_of_one_class_are_warned_of() -> None:
    """They suffice for that class, and there are no labels that would tell."""
    torch.manual_seed(0)
    module, one = residual().eval(), torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        module.get_parameter("last.bias")[1] = 100
    x, other = one + 0.1 * torch.randn(256, 2, 6, 6), torch.randn(256, 2, 6, 6)
    with pytest.warns(UserWarning, match="puts all 128 samples into one class"):
        converted = convert(module, x[:2], samples=x[:128])
    # warns of nothing: there are no classes
    convert(module, x[:2], samples=x[:128], gives_logits=False)
    small = converted.discretize(converted.network.uniform_widths(0.5))
    with torch.no_grad():
        held_out = (small(x[128:]) - module(x[128:])).square().mean() / module(x[128:]).var()
        elsewhere = (small(other) - module(other)).square().mean() / module(other).var()
    assert held_out < 0.1 * elsewhere


def test_an_operation_that_cannot_be_traced_through_freezes_its_channels() -> None:
    torch.manual_seed(0)
    module = Net(
        lambda m, x: m.c(torch.relu(m.b(torch.sort(m.a(x), 1).values))),
        a=nn.Linear(4, 8),
        b=nn.Linear(8, 8),
        c=nn.Linear(8, 3),
    ).eval()
    x = torch.randn(64, 4)
    converted = convert(module, x[:2], samples=x)
    assert [str(one) for one in converted.network.frozen] == [
        "a stays at 8 channels: sort in the module's own forward cannot be traced through"
    ]
    small = converted.discretize(converted.network.smallest_widths)
    assert (small.get_parameter("a.weight").shape, small.get_parameter("b.weight").shape) == (
        (8, 4),
        (2, 8),
    )


def test_the_module_itself_stays_as_it_is() -> None:
    torch.manual_seed(0)
    module = residual().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.randn(32, 2, 6, 6)
    converted = convert(module, x[:2], samples=x)
    converted.discretize(converted.network.smallest_widths)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    full = converted.discretize(converted.network.full_widths)
    with torch.no_grad():
        assert_same(full(x), module(x))
