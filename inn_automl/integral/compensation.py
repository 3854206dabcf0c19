"""Compensation: the weights of narrower layers, fitted so that they rebuild what the full layers compute.

A layer that sums over fewer channels computes another quadrature of the same integral. Instead of prescribing the
interpolation between its samples (nearest, linear, cubic), it is fitted to data: of all weights on the channels that
are left, at all places of the kernel, those are taken whose outputs are nearest, in the mean square over a few hundred
samples, to the outputs of the full layer in the full network. One least-squares problem a layer, in the order in which
the layers run, each on what the layers before it really give by then; no gradient step, no labels. Least-squares
reconstruction of pruned layers: Y. He, X. Zhang and J. Sun, "Channel Pruning for Accelerating Very Deep Neural
Networks", ICCV 2017.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from inn_automl.integral.following import evaluating
from inn_automl.integral.network import IntegralNetwork
from inn_automl.integral.observation import Additions, Consumer, Seen, consumers, observe, rows_at, windows_at

RIDGE = 1e-3
"""By how much a fit is held to the network's own samples, relative to the mean square of a channel: it keeps channels
that are all but sums of others from large weights."""


class Compensator:
    """Discretizes a network with weights that are fitted to what its full width computes.

    Args:
        network: as it is now; its full width is run once, in evaluation mode.
        samples: (N, ...) inputs as the module takes them, a few hundred; no labels.

    Raises:
        InputError: there are too few samples, or all of them are alike.
    """

    def __init__(self, network: IntegralNetwork, samples: Tensor) -> None:
        self._network, self._samples = network, samples
        self._seen = observe(network, samples, consumers(network))
        # A layer that runs several times would have to rebuild several outputs by one weight: it keeps its samples.
        self._consumers = [one for one in consumers(network) if one.path in self._seen]
        self._consumers = [one for one in self._consumers if self._seen[one.path].num_calls == 1]

    def discretize(
        self, widths: Mapping[str, int], *, keep_statistics: bool = False, ridge: float = RIDGE
    ) -> nn.Module:
        """A plain module at the widths.

        Its normalization statistics are those of the full width, resampled: re-estimate them
        (`normalization.reestimate_normalization`) before use.

        Args:
            keep_statistics: whether layers normalize with the statistics of the full width while later ones are fitted,
                rather than with those of the samples. Measured: better where little is left out, worse where much is.
            ridge: by how much the fits are held to the network's own samples: 0 for not at all.

        Raises:
            WidthsError: see `IntegralNetwork.check_widths`.
        """
        samples = self._network.coupling.samples(self._network.check_widths(widths))
        module = self._network.discretize(widths)
        fitting = _Fitting(self._network, samples, ridge)
        hooks = []
        for one in self._consumers:
            layer, seen = module.get_submodule(one.path), self._seen[one.path]
            hooks += fitting.hooks(layer, one, seen)
        statistics = contextlib.nullcontext() if keep_statistics else _batch_statistics(module)
        try:
            with torch.no_grad(), evaluating(module), statistics, Additions(fitting.at_addition):
                module(self._samples)
        finally:
            for hook in hooks:
                hook.remove()
        return module


class _Fitting:
    """Fits the layers of a module while it runs.

    A layer is fitted before it runs; one whose output is added to a residual stream after that, to what the stream of
    the full network is then, so that it makes up for what the stream has lost.
    """

    def __init__(self, network: IntegralNetwork, samples: tuple[int, ...], ridge: float) -> None:
        self._network, self._samples, self._ridge = network, samples, ridge
        self._latest: tuple[nn.Module, Tensor, Tensor, Consumer, Seen] | None = None

    def hooks(self, layer: nn.Module, consumer: Consumer, seen: Seen) -> list[RemovableHandle]:
        def before(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            wanted = self._network.sample_channels(seen.outputs, consumer.weight, self._samples)
            self._fit(layer, arguments[0], wanted, seen)

        def after(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            self._latest = (layer, arguments[0], output, consumer, seen)

        if seen.sums is None:
            return [layer.register_forward_pre_hook(before)]
        return [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]

    def at_addition(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        if self._latest is None:
            return first, second
        layer, x, output, consumer, seen = self._latest
        if (first is not output and second is not output) or seen.sums is None:
            return first, second
        self._latest = None
        stream = second if first is output else first
        wanted = self._network.sample_channels(seen.sums, consumer.weight, self._samples)
        self._fit(layer, x, wanted - rows_at(layer, stream, seen.places), seen)
        fitted = layer.forward(x)
        return (fitted, second) if first is output else (first, fitted)

    def _fit(self, layer: nn.Module, x: Tensor, wanted: Tensor, seen: Seen) -> None:
        fit(layer, windows_at(layer, x, seen.places), wanted, ridge=self._ridge, is_centered=seen.is_normalized)


def fit(layer: nn.Module, x: Tensor, wanted: Tensor, *, ridge: float, is_centered: bool) -> None:
    """Gives a layer the weights, and the bias if it has one, with which it makes of `x` what is nearest to `wanted`.

    Args:
        layer: linear or convolutional, with the weights that the fit is held to.
        x: (r, f) what it multiplies with its weights.
        wanted: (r, o) its outputs.
        ridge: how much it is held, relative to the mean square of a feature.
        is_centered: whether the means of the outputs do not matter.
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    x, wanted = x.double(), wanted.double()
    x_mean, wanted_mean = x.mean(0), wanted.mean(0)
    if is_centered or bias is not None:
        x, wanted = x - x_mean, wanted - wanted_mean
    gram = x.T @ x
    pull = ridge * gram.diagonal().mean() + torch.finfo(torch.float32).tiny
    right = x.T @ wanted + pull * weight.detach().flatten(1).double().T
    gram.diagonal().add_(pull)
    fitted = torch.linalg.solve(gram, right).T
    weight.data.copy_(fitted.reshape(weight.shape))
    if isinstance(bias, Tensor):
        bias.data.copy_(wanted_mean - fitted @ x_mean)


@contextlib.contextmanager
def _batch_statistics(module: nn.Module) -> Iterator[None]:
    """Normalization layers normalize with the statistics of the batch, and keep their own as they are."""
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    momenta = {layer: layer.momentum for layer in layers}
    try:
        for layer in layers:
            layer.train()
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
