"""Oracle: outputs of a network at reduced widths, by other means than sampling it.

With the nested partition every removed channel can instead be set to zero: in all parameters of
the full-size module, along all axes. That gives the same outputs wherever no operation averages
over channels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from inn_automl.integral import IntegralNetwork
from inn_automl.integral.graph.groups import Coupling
from inn_automl.integral.graph.layout import AxisLayout
from inn_automl.integral.validation import widths_between


def kept(coupling: Coupling, parts: AxisLayout, counts: tuple[int, ...]) -> Tensor:
    """Which elements of a full-size axis are left."""
    full = coupling.full_counts()
    runs = []
    for part in parts:
        run = (
            torch.arange(full[part.group]) < counts[part.group]
            if part.group >= 0
            else torch.ones(1, dtype=torch.bool)
        )
        runs.append(run.repeat_interleave(part.inner).repeat(part.outer))
    return torch.cat(runs)


def masked(network: IntegralNetwork, widths: Mapping[str, int]) -> nn.Module:
    """The module at its full size, with removed channels set to zero."""
    module = copy.deepcopy(network.module)
    counts = network.coupling.counts(widths)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                continue
            for dim, parts in enumerate(network.coupling.axes[name]):
                mask = kept(network.coupling, parts, counts)
                tensor.mul_(mask.reshape([-1] + [1] * (tensor.dim() - dim - 1)).to(tensor.dtype))
    return module


def randomized(module: nn.Module) -> nn.Module:
    """The module with no parameter or statistic left at a value that hides mistakes, such as 0 or
    1.
    """
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5
                    if name.endswith("running_var")
                    else torch.randn_like(tensor)
                )
                if tensor.dim() > 1:
                    tensor.div_(tensor[0].numel() ** 0.5)
    return module


def some_widths(network: IntegralNetwork) -> list[dict[str, int]]:
    return [network.smallest_widths, widths_between(network.coupling)]


def outputs(value: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def assert_same(
    found: Tensor | tuple[Tensor, ...],
    expected: Tensor | tuple[Tensor, ...],
    tolerance: float = 1e-4,
) -> None:
    for one, other in zip(outputs(found), outputs(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def check_zero_padding(network: IntegralNetwork, x: Tensor) -> None:
    """Checks that zero padding changes no output and no gradient in training."""
    network.train()
    for widths in some_widths(network):
        found = []
        for pad_channels in (False, True):
            network.zero_grad()
            given = outputs(network(x, widths, pad_channels=pad_channels))
            torch.stack([one.square().mean() for one in given]).sum().backward()
            found.append((*given, *(p.grad for p in network.parameters() if p.grad is not None)))
        assert_same(*found, 1e-3)


@torch.no_grad()
def check_network(
    network: IntegralNetwork, module: nn.Module, x: Tensor, *, is_maskable: bool = True
) -> None:
    """Checks everything that must hold for any module with the nested partition."""
    network.eval()
    module.eval()
    assert_same(network(x), module(x))
    assert Coupling.from_json(network.coupling.to_json()) == network.coupling
    for widths in some_widths(network):
        plain = network.discretize(widths).eval()
        found = network(x, widths)
        assert_same(plain(x), found, 1e-6)
        if is_maskable:
            assert_same(found, masked(network, widths)(x))
        assert not any(type(one).__module__.startswith("inn_automl") for one in plain.modules())
        check_costs(network, widths, plain, x)


def check_costs(
    network: IntegralNetwork, widths: Mapping[str, int], plain: nn.Module, x: Tensor
) -> None:
    costs = network.costs(widths)
    assert costs.params == sum(p.numel() for p in plain.parameters())
    # Fused attention, and torch's layer for it without gradients, are not counted.
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.enable_grad(),
    ):
        plain(x)
    assert 2 * costs.macs * x.shape[0] == counter.get_total_flops()
