"""Compensation: the weights of narrower layers, fitted so that they rebuild what the full layers
compute.

A layer that sums over fewer channels computes another quadrature of the same integral. Instead of
prescribing the interpolation between its samples (nearest, linear, cubic), it is fitted to data:
of all weights on the channels that are left, at all places of the kernel, those are taken whose
outputs are nearest, in the mean square over a few hundred samples, to the outputs of the full
layer in the full network. One least-squares problem a layer, in the order in which the layers run,
each on what the layers before it really give by then; no gradient step, no labels. Least-squares
reconstruction of pruned layers: Y. He, X. Zhang and J. Sun, "Channel Pruning for Accelerating Very
Deep Neural Networks", ICCV 2017.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from inn_automl.integral.conversion.activations import (
    Consumer,
    capture_activations,
    consumers,
    windows_at,
)
from inn_automl.integral.conversion.least_squares import fit, fit_saturated
from inn_automl.integral.graph.trace import evaluating
from inn_automl.integral.network import IntegralNetwork

RIDGE = 1e-3
"""By how much a fit is held to the network's own samples, relative to the mean square of a
channel: it keeps channels that are all but sums of others from large weights."""


@dataclass(frozen=True)
class ReconstructionRule:
    """What a fit is after.

    Attributes:
        ignores_saturated: whether outputs that an activation clips in the full network may be anything
            that it clips as well.
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
    """Discretizes a network with weights that are fitted to what its full width computes.

    Args:
        network: as it is now; its full width is run once, in evaluation mode.
        samples: (N, ...) inputs as the module takes them, a few hundred; no labels.

    Raises:
        InputError: there are too few samples, or all of them are alike.
    """

    def __init__(self, network: IntegralNetwork, samples: Tensor) -> None:
        self._network, self._samples = network, samples
        self._seen = capture_activations(network, samples, consumers(network))
        # A layer that runs several times would have to rebuild several outputs by one weight: it
        # keeps its samples.
        self._consumers = [one for one in consumers(network) if one.path in self._seen]
        self._consumers = [one for one in self._consumers if self._seen[one.path].num_calls == 1]

    def discretize(
        self,
        widths: Mapping[str, int],
        rule: ReconstructionRule | None = None,
        *,
        ridge: float = RIDGE,
    ) -> nn.Module:
        """A plain module at the widths.

        Its normalization statistics are those of the full width, resampled: re-estimate them
        (`recalibrate_batch_norm`) before use.

        Args:
            rule: of the fits; by default the first of `RECONSTRUCTION_RULES`.
            ridge: by how much the fits are held to the network's own samples: 0 for not at all.

        Raises:
            WidthsError: see `IntegralNetwork.check_widths`.
        """
        counts = self._network.coupling.counts(self._network.check_widths(widths))
        module = self._network.discretize(widths)
        rule = rule or RECONSTRUCTION_RULES[0]
        hooks = [
            module.get_submodule(one.path).register_forward_pre_hook(
                self._fitting(module, one, counts, rule, ridge)
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
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        seen = self._seen[consumer.path]
        wanted = self._network.sample_channels(seen.outputs, consumer.weight, counts)
        norm = None if seen.norm is None else module.get_submodule(seen.norm)
        saturation = seen.saturation if rule.ignores_saturated else None

        def before(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = windows_at(layer, arguments[0], seen.places)
            if saturation is not None and norm is None and layer.bias is not None:
                fit_saturated(layer, x, wanted, ridge=ridge, saturation=saturation)
            elif saturation is not None and isinstance(norm, _BatchNorm) and norm.affine:
                fit_saturated(layer, x, wanted, ridge=ridge, saturation=saturation, norm=norm)
            else:
                fit(layer, x, wanted, ridge=ridge, is_centered=norm is not None)

        return before


def fit_width_deltas(network: IntegralNetwork, samples: Tensor) -> None:
    """Gives width_deltas the values with which the smallest widths are what is fitted to the full one
    there.

    Args:
        network: with width_deltas, and partitions that take nodes as they are (`Nested`): of others this
            is a step that way.
        samples: as `Reconstructor` takes them.

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
    fitted = dict(Reconstructor(network, samples).discretize(widths).named_parameters())
    sampled = network.sample_parameters(widths)
    missing = [(fitted[name] - sampled[name]).detach() for name in names]
    # What is taken as it is goes back to where it was taken from, times its width_coordinate.
    steps = torch.autograd.grad(
        [sampled[name] for name in names], [width_deltas[name] for name in names], missing
    )
    with torch.no_grad():
        for name, step in zip(names, steps, strict=True):
            if step.isfinite().all():
                width_deltas[name].add_(step, alpha=width_coordinate[name] ** -2)


@contextlib.contextmanager
def _batch_statistics(module: nn.Module) -> Iterator[None]:
    """Normalization layers normalize with the statistics of the batch, and keep their own as they
    are.
    """
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
