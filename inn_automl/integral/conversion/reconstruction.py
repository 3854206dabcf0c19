"""Least-squares weight reconstruction: weights of narrow layers that reproduce the full layers.

A layer that sums over fewer channels is another quadrature of the same integral. The interpolation
between its channels is not prescribed (nearest, linear, cubic), but fitted to data: the weights on
the remaining channels, at all positions of the kernel, are those whose outputs are nearest, in the
mean square over a few hundred samples, to the outputs of the full layer in the full network. One
least-squares problem a layer, in the order in which the layers run, each on the outputs of the
reconstructed layers before it; no gradient step, no labels.

Least-squares reconstruction of pruned layers: Y. He, X. Zhang and J. Sun, "Channel Pruning for
Accelerating Very Deep Neural Networks", ICCV 2017.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from inn_automl.integral.conversion.activations import (
    Consumer,
    LayerActivations,
    capture_activations,
    consumers,
)
from inn_automl.integral.conversion.least_squares import fit, fit_saturated
from inn_automl.integral.conversion.windows import windows_at
from inn_automl.integral.modes import evaluating
from inn_automl.integral.network import IntegralNetwork

RIDGE = 1e-3
"""Weight of the distance to the sampled weights, relative to the mean square of a channel: it
keeps nearly dependent channels from large weights."""


@dataclass(frozen=True)
class ReconstructionRule:
    """The goal of a layer's fit.

    Attributes:
        ignores_saturated: whether outputs at which the full network's activation saturates may
            take any value at which it saturates as well.
        keeps_statistics: whether layers normalize with the statistics of the full width while
            later ones are fitted, rather than with those of the samples.
    """

    ignores_saturated: bool
    keeps_statistics: bool = False


RECONSTRUCTION_RULES = (
    ReconstructionRule(ignores_saturated=True),
    ReconstructionRule(ignores_saturated=False),
    ReconstructionRule(ignores_saturated=False, keeps_statistics=True),
)
"""The best one first, where much is left out; where little is, one of the others may be better."""


class Reconstructor:
    """Discretizes a network with weights that are reconstructed from its full width.

    `from_samples` makes one.

    Args:
        network: the integral network.
        samples: (N, ...) inputs as the module takes them, a few hundred; no labels.
        activations: of the network's consumers at full width on the samples, by path.
    """

    def __init__(
        self,
        network: IntegralNetwork,
        samples: Tensor,
        activations: Mapping[str, LayerActivations],
    ) -> None:
        self._network, self._samples, self._activations = network, samples, activations
        # A layer that runs several times would have to reproduce several outputs by one weight: it
        # keeps its sampled weights.
        self._consumers = [
            one
            for one in consumers(network)
            if one.path in activations and activations[one.path].num_calls == 1
        ]

    @classmethod
    def from_samples(cls, network: IntegralNetwork, samples: Tensor) -> Reconstructor:
        """Runs the full width of a network once, in evaluation mode, on the samples.

        Args:
            network: as it is now; later changes of its weights are not seen.
            samples: (N, ...) inputs as the module takes them, a few hundred; no labels.

        Raises:
            InputError: there are too few samples, or all of them are alike.
        """
        activations = capture_activations(network, samples, consumers(network))
        return cls(network, samples, activations)

    def discretize(
        self,
        widths: Mapping[str, int],
        rule: ReconstructionRule | None = None,
        *,
        ridge: float = RIDGE,
        deadline_s: float = math.inf,
    ) -> nn.Module:
        """A plain module at the widths.

        Its running statistics are sampled from those of the full width: call
        `recalibrate_batch_norm` before use.

        Args:
            widths: channels of each group by name.
            rule: of the fits; by default the first of `RECONSTRUCTION_RULES`.
            ridge: weight of the distance to the sampled weights; 0 for plain least squares.
            deadline_s: `time.monotonic()` after which no layer is fitted.

        Raises:
            WidthsError: see `IntegralNetwork.check_widths`.
            TimeoutError: the deadline passed before all layers were fitted.
        """
        counts = self._network.coupling.counts(self._network.check_widths(widths))
        module = self._network.discretize(widths)
        rule = rule or RECONSTRUCTION_RULES[0]
        hooks = [
            module.get_submodule(one.path).register_forward_pre_hook(
                self._fitting(module, one, counts, rule, ridge, deadline_s)
            )
            for one in self._consumers
        ]
        statistics = (
            contextlib.nullcontext() if rule.keeps_statistics else _batch_statistics(module)
        )
        try:
            with torch.no_grad(), evaluating(module), statistics:
                module(self._samples)
        finally:
            for hook in hooks:
                hook.remove()
        return module

    def _fitting(
        self,
        module: nn.Module,
        consumer: Consumer,
        counts: tuple[int, ...],
        rule: ReconstructionRule,
        ridge: float,
        deadline_s: float,
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        full = self._activations[consumer.path]
        wanted = self._network.sample_channels(full.outputs, consumer.weight, counts)
        norm = None if full.norm is None else module.get_submodule(full.norm)
        saturation = full.saturation if rule.ignores_saturated else None

        def before(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{consumer.path} was not reached in time")
            x = windows_at(layer, arguments[0], full.positions)
            if saturation is not None and norm is None and layer.bias is not None:
                fit_saturated(layer, x, wanted, ridge=ridge, saturation=saturation)
            elif saturation is not None and isinstance(norm, _BatchNorm) and norm.affine:
                fit_saturated(layer, x, wanted, ridge=ridge, saturation=saturation, norm=norm)
            else:
                fit(layer, x, wanted, ridge=ridge, is_centered=norm is not None)

        return before


def fit_width_deltas(network: IntegralNetwork, samples: Tensor) -> None:
    """Gives width deltas the values with which the smallest widths have reconstructed weights.

    Args:
        network: with width deltas, and nested partitions; for other partitions this is a step in
            that direction.
        samples: (N, ...) inputs as the module takes them, a few hundred; no labels.

    Raises:
        InputError: there are too few samples, or all of them are alike.
    """
    widths, width_deltas = network.smallest_widths, network.named_width_deltas()
    width_coordinate = {
        name: network.coupling.width_coordinate(name, network.coupling.counts(widths))
        for name in width_deltas
    }
    names = [
        name
        for name, width_delta in width_deltas.items()
        if width_delta.requires_grad and width_coordinate[name] > 0
    ]
    fitted = dict(
        Reconstructor.from_samples(network, samples).discretize(widths).named_parameters()
    )
    sampled = network.sample_parameters(widths)
    missing = [(fitted[name] - sampled[name]).detach() for name in names]
    # The gradient of a prefix slice puts each element back in its position, times its coordinate.
    steps = torch.autograd.grad(
        [sampled[name] for name in names], [width_deltas[name] for name in names], missing
    )
    with torch.no_grad():
        for name, step in zip(names, steps, strict=True):
            if step.isfinite().all():
                width_deltas[name].add_(step, alpha=width_coordinate[name] ** -2)


@contextlib.contextmanager
def _batch_statistics(module: nn.Module) -> Iterator[None]:
    """Normalizes with the statistics of the batch; running statistics stay as they are."""
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, _NormBase) and layer.track_running_stats
    ]
    momenta = {layer: layer.momentum for layer in layers}
    try:
        for layer in layers:
            layer.train()
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
