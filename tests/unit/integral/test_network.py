from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inn_automl.core.errors import ModuleError, WidthsError
from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Trainable, Uniform
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.validation import widths_between
from inn_automl.models import build
from tests.unit.integral.oracle import assert_same, randomized
from tests.unit.integral.two_groups import SMALL, X, make
from tests.unit.integral.zoo import Net, conv, head

# Widths.


def test_groups_and_widths(network: IntegralNetwork) -> None:
    assert [group.name for group in network.groups] == ["a", "c"]
    assert list(network.groups[0].allowed) == [2, 3, 4, 5, 6, 7, 8]
    assert network.full_widths == {"a": 8, "c": 12}
    assert network.smallest_widths == {"a": 2, "c": 3}
    assert network.uniform_widths(0.5) == {"a": 4, "c": 6}
    assert network.uniform_widths(0.01) == network.smallest_widths
    assert network.uniform_widths(np.float32(1)) == network.uniform_widths(1)
    assert network.uniform_widths(1) == network.full_widths


def test_widths_of_groups_with_a_unit() -> None:
    module = nn.Sequential(conv(3, 12), conv(12, 12, groups=4), conv(12, 5, 1), head(5))
    network = IntegralNetwork(module, X, min_ratio=0.5)
    assert list(network.groups[0].allowed) == [8, 12]
    assert network.smallest_widths == {"0": 8, "1": 8, "2": 3}
    with pytest.raises(
        WidthsError, match=r"width 10 of '0' is not allowed: give 8 to 12 in steps of 4\."
    ):
        network.check_widths({"0": 10, "1": 8, "2": 3})


def test_widths_that_are_allowed(network: IntegralNetwork) -> None:
    checked = network.check_widths({"c": np.int64(7), "a": 5.0})  # type: ignore[dict-item]
    assert checked == {"a": 5, "c": 7}
    assert list(checked) == ["a", "c"]
    assert all(type(width) is int for width in checked.values())


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"a": 5}, "widths lack the coupled group 'c': give 3 to 12."),
        ({"a": 5, "c": 2}, "width 2 of 'c' is not allowed: give 3 to 12."),
        ({"a": 5, "c": 13}, "width 13 of 'c' is not allowed: give 3 to 12."),
        ({"a": 5, "c": 4.5}, "width 4.5 of 'c' is not allowed: give 3 to 12."),
        ({"a": 5, "c": "7"}, "width '7' of 'c' is not allowed: give 3 to 12."),
        ({"a": 5, "c": None}, "width None of 'c' is not allowed: give 3 to 12."),
        (
            {"a": 5, "c": 7, "aa": 3},
            "there is no coupled group 'aa': did you mean 'a'? Known are a, c.",
        ),
        ({"a": 5, "c": 7, 3: 3}, "there is no coupled group 3: known are a, c."),
    ],
)
def test_widths_that_are_not(
    network: IntegralNetwork, widths: dict[str, int], message: str
) -> None:
    for use in (network.check_widths, network.discretize, network.costs, lambda w: network(X, w)):
        with pytest.raises(WidthsError) as error:
            use(widths)
        assert str(error.value) == message


def test_costs_name_the_layers(network: IntegralNetwork) -> None:
    layers = network.costs(SMALL).layers
    assert [(one.name, one.kind, one.in_channels, one.out_channels) for one in layers] == [
        ("a", "conv", 3, 5),
        ("b", "grouped_conv", 5, 5),
        ("c", "conv", 5, 7),
        ("head.2", "linear", 7, 5),
    ]
    assert layers[2].macs == 8 * 8 * 7 * 5 * 9
    assert layers[2].params == 7 * 5 * 9 + 7
    assert (layers[2].input_elements, layers[2].output_elements) == (5 * 64, 7 * 64)
    assert network.costs(network.full_widths).macs > network.costs(SMALL).macs


def test_bounds_of_min_ratio(coupling: Coupling) -> None:
    for ratio in (0, -1, 1.01, float("nan")):
        with pytest.raises(WidthsError, match="is not a ratio of the channels"):
            IntegralNetwork(make(), X, min_ratio=ratio)
    assert IntegralNetwork(make(), X, min_ratio=1).smallest_widths == {"a": 8, "c": 12}


# The module.


def test_the_module_itself_stays_as_it_is() -> None:
    module = make()
    module.register_buffer("average", torch.zeros(8))
    run = module.run
    module.run = lambda m, x: run(m, x) + m.average.add_(1).sum() * 0
    module.norm.eval()
    before = copy.deepcopy(module.state_dict())
    network = IntegralNetwork(module, X, partition=Uniform())
    network(X, network.smallest_widths)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert module.training
    assert not module.norm.training
    # So does its copy while it is followed: neither modes nor buffers remember the example.
    assert network.module.training
    assert not network.module.norm.training


def test_the_random_state_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.Dropout(0.5), nn.Linear(8, 5))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    IntegralNetwork(module, torch.zeros(2, 10))
    assert torch.equal(torch.rand(1), expected)


def test_a_failing_forward_leaves_the_nodes_in_place(network: IntegralNetwork) -> None:
    before = {name: id(value) for name, value in network.named_parameters()}
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, 4, 8, 8), SMALL)
    assert {name: id(value) for name, value in network.named_parameters()} == before
    assert (network.module.b.groups, network.module.c.in_channels) == (8, 8)
    assert network(X).shape == (2, 5)


@pytest.mark.parametrize(
    "partition", [Nested(), Uniform(), CellAverages()], ids=lambda p: type(p).__name__
)
def test_running_statistics_are_those_of_the_full_width(
    coupling: Coupling, partition: Partition
) -> None:
    network = IntegralNetwork(make(), X, coupling=coupling, partition=partition).train()
    plain = make().train()
    norm = network.module.norm
    before = norm.running_mean.clone()
    network(X, SMALL)
    assert torch.equal(norm.running_mean, before)
    assert int(norm.num_batches_tracked) == 0
    network(X)
    plain(X)
    torch.testing.assert_close(norm.running_mean, plain.norm.running_mean)
    assert int(norm.num_batches_tracked) == 1


def test_reduced_widths_use_batch_statistics_in_training(network: IntegralNetwork) -> None:
    network.train()
    assert not torch.allclose(network(X, SMALL), network.eval()(X, SMALL))


def test_copies_are_independent(network: IntegralNetwork) -> None:
    network.eval()
    expected = network(X, SMALL)
    other = copy.deepcopy(network)
    assert_same(other(X, SMALL), expected, 1e-6)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert_same(network(X, SMALL), expected, 1e-6)
    assert not torch.allclose(other(X, SMALL), expected)
    assert other.discretize(SMALL).c.in_channels == 5


def test_pickled_to_another_process() -> None:
    """Ours is no obstacle to what torch and Ray do with plain modules."""
    network = IntegralNetwork(
        nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 5)), torch.zeros(2, 10)
    ).eval()
    again = pickle.loads(pickle.dumps(network))  # noqa: S301
    x = torch.randn(2, 10)
    assert_same(again(x, {"0": 3}), network(x, {"0": 3}), 1e-6)


def test_other_types_after_the_fact(network: IntegralNetwork) -> None:
    expected = network.eval()(X, SMALL)
    assert_same(network.double()(X.double(), SMALL).float(), expected, 1e-5)
    half = network.to(torch.bfloat16)
    found = half(X.bfloat16(), SMALL)
    assert found.dtype == torch.bfloat16
    assert {p.dtype for p in half.discretize(SMALL).parameters()} == {torch.bfloat16}
    network.to(memory_format=torch.channels_last)
    assert network(X.bfloat16(), SMALL).shape == (2, 5)


def test_state_dict_is_that_of_the_module(network: IntegralNetwork, coupling: Coupling) -> None:
    other = IntegralNetwork(randomized(make()), X, coupling=coupling)
    assert {
        name.removeprefix("module.") for name in network.state_dict()
    } == make().state_dict().keys()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(X, SMALL), network.eval()(X, SMALL))


# Discretized modules.


def test_a_discretized_module_is_plain_and_owns_its_tensors(network: IntegralNetwork) -> None:
    network.module.a.weight.requires_grad_(False)
    network(X).sum().backward()
    plain = network.discretize(SMALL)
    storages = {t.untyped_storage().data_ptr() for t in network.state_dict().values()}
    assert storages.isdisjoint(t.untyped_storage().data_ptr() for t in plain.state_dict().values())
    assert all(t.is_contiguous() for t in plain.state_dict().values())
    assert type(plain) is Net
    assert not plain.a.weight.requires_grad
    assert plain.c.weight.requires_grad
    assert all(
        isinstance(p, nn.Parameter) and p.is_leaf and p.grad is None for p in plain.parameters()
    )
    assert (plain.b.in_channels, plain.b.out_channels, plain.b.groups) == (5, 5, 5)
    assert "Conv2d(5, 7, kernel_size" in repr(plain)
    assert "BatchNorm2d(7," in repr(plain)
    plain.train()(X).sum().backward()


def test_tied_weights_stay_tied() -> None:
    module = nn.Sequential(conv(3, 8), conv(8, 8), nn.ReLU(), conv(8, 8), head(8))
    module[3].weight = module[1].weight
    plain: Any = IntegralNetwork(module, X).discretize({"0": 4})
    assert plain[3].weight is plain[1].weight
    assert plain[3].weight.shape == (4, 4, 3, 3)


def test_sizes_that_layers_declare() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.norm(m.prelu(m.up(m.conv(x))))
        # a forward may read what a layer declares
        x = x.view(x.shape[0], m.up.out_channels, -1).mT
        return m.fc(m.layer(x)).mean(1)

    module = Net(
        run,
        conv=conv(3, 8),
        up=nn.ConvTranspose2d(8, 6, 2),
        prelu=nn.PReLU(6),
        norm=nn.GroupNorm(2, 6),
        layer=nn.LayerNorm(6),
        fc=nn.Linear(6, 5),
    )
    network = IntegralNetwork(module, X).eval()
    assert not network.frozen
    plain: Any = network.discretize({"conv": 5, "up": 4}).eval()
    assert (plain.up.in_channels, plain.up.out_channels) == (5, 4)
    assert (plain.prelu.num_parameters, plain.norm.num_channels, plain.norm.num_groups) == (4, 4, 2)
    assert (plain.layer.normalized_shape, plain.fc.in_features, plain.fc.out_features) == (
        (4,),
        4,
        5,
    )
    assert torch.equal(plain(X), network(X, {"conv": 5, "up": 4}))


# Partitions.


def test_partitions_by_group(coupling: Coupling) -> None:
    network = IntegralNetwork(make(), X, coupling=coupling, partition={"c": CellAverages()}).eval()
    plain: Any = network.discretize({"a": 4, "c": 6})
    module: Any = make()
    assert torch.equal(plain.a.weight, module.a.weight[:4])
    torch.testing.assert_close(plain.norm.bias, module.norm.bias.view(6, 2).mean(1))
    # The layer behind sums over a mean of two channels with twice the weight.
    torch.testing.assert_close(plain.head[2].weight, module.head[2].weight.view(5, 6, 2).sum(2))
    with pytest.raises(WidthsError, match="there is no coupled group 'd'"):
        IntegralNetwork(make(), X, coupling=coupling, partition={"d": Nested()})


def test_learned_partitions_are_parameters(coupling: Coupling) -> None:
    network = IntegralNetwork(
        make(), X, coupling=coupling, partition={"a": Trainable(8), "c": Trainable(5)}
    )
    assert sum("delta" in name for name, _ in network.named_parameters()) == 2
    widths = {"a": 8, "c": 5}
    network.train()(X, widths).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.discretize(widths).c.out_channels == 5
    with pytest.raises(WidthsError, match="has 5 points, 12 were requested"):
        network(X)


# Modules that cannot become integral networks.


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), head(8))


def branching() -> nn.Module:
    return Net(lambda m, x: m.head(x) if x.sum() > 0 else m.head(-x), head=head(3))


def uncopyable() -> nn.Module:
    module = make()
    module.cache = (i for i in range(3))  # type: ignore[assignment]
    return module


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
            X,
            "has no channels that can be resized: no weighted layer",
        ),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), X, "has no channels that can be resized"),
        (
            Net(
                lambda m, x: m.head(torch.fft.fft(m.a(x)).real.roll(1, 1)),
                a=conv(3, 8),
                head=head(8),
            ),
            X,
            "fft_fft in the module",
        ),
        (branching(), X, "cannot be traced by torch.export with an input of shape"),
        (
            conv(3, 8),
            torch.zeros(2, 4, 8, 8),
            "cannot be traced by torch.export with an input of shape",
        ),
        (lazy(), X, "has parameters without a size"),
        (uncopyable(), X, "cannot be copied"),
    ],
    ids=[
        "one layer",
        "no layer",
        "unknown operation",
        "branching",
        "other input",
        "lazy",
        "uncopyable",
    ],
)
def test_modules_that_cannot(module: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(ModuleError, match=message):
        IntegralNetwork(module, x)


def test_the_coupling_of_another_module(coupling: Coupling) -> None:
    module = make()
    module.c = conv(8, 10)
    with pytest.raises(ModuleError, match=r"c.bias is \(10,\) instead of \(12,\)"):
        IntegralNetwork(module, X, coupling=coupling)


def test_widths_between_are_those_of_no_other_group(coupling: Coupling) -> None:
    widths = widths_between(coupling)
    assert len(set(widths.values())) == len(widths)
    assert all(2 <= widths[group.name] < group.size for group in coupling.groups)


def test_a_coupling_of_groups_that_do_not_exist(coupling: Coupling) -> None:
    value = coupling.to_json()
    with pytest.raises(ValueError, match="an axis belongs to group 1 of 1"):
        Coupling.from_json({**value, "groups": value["groups"][:1]})


@pytest.mark.parametrize("family", ["mlp", "convnet", "mobilenet", "resnet", "vit"])
def test_remembered_costs_are_those_of_the_module(family: str) -> None:
    shape = (3, 32, 32)
    network = IntegralNetwork(build(family, shape, 10), torch.zeros(2, *shape))
    generator = np.random.default_rng(0)
    for _ in range(20):
        widths = {
            group.name: int(generator.choice(list(group.allowed))) for group in network.groups
        }
        found = network.costs(widths)
        fresh = Coupling.from_json(network.coupling.to_json()).costs(widths)  # remembers nothing
        assert found == fresh == network.costs(widths)
        assert found.params == sum(p.numel() for p in network.discretize(widths).parameters())


@pytest.mark.parametrize(
    ("family", "supports_zero_padding"),
    [("convnet", True), ("resnet", True), ("mobilenet", True), ("mlp", False), ("vit", False)],
)
def test_families_that_support_zero_padding(family: str, supports_zero_padding: bool) -> None:
    network = IntegralNetwork(build(family, (3, 16, 16), 4), torch.zeros(2, 3, 16, 16))
    assert network.supports_zero_padding == supports_zero_padding
