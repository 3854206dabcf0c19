"""Conversion of trained networks: a network that was trained at full width only can be discretized
at any widths, without training.

Channels are ranked (`channel_ranking`, `tsp_ordering`); at each width the weights are
reconstructed (`reconstruction`) and batch norm is recalibrated. A few hundred samples, no labels,
no gradient step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inn_automl.core.errors import UnknownNameError
from inn_automl.integral.batch_norm import recalibrate_batch_norm
from inn_automl.integral.conversion.activations import check_samples
from inn_automl.integral.conversion.channel_ranking import permute, rank_channels
from inn_automl.integral.conversion.reconstruction import RECONSTRUCTION_RULES, Reconstructor
from inn_automl.integral.conversion.tsp_ordering import tsp_order
from inn_automl.integral.network import IntegralNetwork
from inn_automl.integral.sampling.interpolation import Linear
from inn_automl.integral.sampling.partition import Nested, Partition, Uniform
from inn_automl.integral.sampling.quadrature import Riemann

ORDERS: dict[str, Partition] = {"pivoted_cholesky": Nested(), "tsp": Uniform(Linear(), Riemann())}
"""Orders of channels, each with the partition that served it best (docs/explanation/theory.md)."""
_BATCH = 256


class ConvertedNetwork:
    """A trained module that can be discretized at any widths; `convert` makes one.

    Args:
        network: the module as an integral network, its channels in order; at full width its
            outputs are those of the module.
        reconstructor: of the network's weights.
        samples: (N, ...) inputs that outputs are compared on.
        order: of the network's channels, one of `ORDERS`.
        gives_logits: whether outputs (N, K) of K > 1 are logits of classes.

    Attributes:
        network: as given.
        order: as given.
    """

    def __init__(
        self,
        network: IntegralNetwork,
        reconstructor: Reconstructor,
        samples: Tensor,
        *,
        order: str,
        gives_logits: bool = True,
    ) -> None:
        self.network = network
        self.order = order
        self._reconstructor = reconstructor
        self._samples = samples
        self._gives_logits = gives_logits
        self._full_outputs: Tensor | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__} of {type(self.network.module).__name__}: "
            f"order {self.order!r}, {len(self._samples)} samples"
        )

    def discretize(self, widths: Mapping[str, int]) -> nn.Module:
        """A plain module at the widths, in evaluation mode, with weights and statistics of its
        own.

        Of the reconstructions by `RECONSTRUCTION_RULES`, the one whose outputs are nearest to
        those of the full width on the samples.

        Args:
            widths: channels of each group by name.

        Raises:
            WidthsError: see `IntegralNetwork.check_widths`.
        """
        if self.network.check_widths(widths) == self.network.full_widths:
            return self.network.discretize(widths).eval()
        full = self.full_outputs()
        found = []
        for rule in RECONSTRUCTION_RULES:
            module = self._reconstructor.discretize(widths, rule)
            recalibrate_batch_norm(module, self._samples.split(_BATCH))
            module.eval()
            found.append((float((self._outputs(module) - full).square().mean()), module))
        return min(found, key=lambda one: one[0])[1]

    def full_outputs(self) -> Tensor:
        """Outputs of the full width on the samples, as `discretize` compares them; computed once.

        Returns:
            (N, K) probabilities where the module gives logits, else (N, ...) its outputs.
        """
        if self._full_outputs is None:
            module = self.network.discretize(self.network.full_widths).eval()
            self._full_outputs = self._outputs(module)
        return self._full_outputs

    def _outputs(self, module: nn.Module) -> Tensor:
        with torch.no_grad():
            out = torch.cat([module(batch) for batch in self._samples.split(_BATCH)])
        return out.softmax(1) if self._gives_logits and out.ndim == 2 and out.shape[1] > 1 else out


def convert(
    module: nn.Module,
    example_input: Tensor,
    *,
    samples: Tensor,
    min_ratio: float = 0.25,
    order: str = "pivoted_cholesky",
    partition: Partition | None = None,
    gives_logits: bool = True,
) -> ConvertedNetwork:
    """Converts a trained module to one that can be discretized at any widths, without training.

    Warns where a classifier puts all samples into one class: narrow networks would know little of
    the others.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from inn_automl.integral import convert
        >>> module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
        >>> samples = torch.randn(64, 4)
        >>> converted = convert(module, samples[:2], samples=samples)
        >>> converted.network.full_widths
        {'0': 8}
        >>> small = converted.discretize({"0": 4})
        >>> small[0], small(samples).shape
        (Linear(in_features=4, out_features=4, bias=True), torch.Size([64, 1]))

    Args:
        module: any torch module that maps one tensor to one; copied, never changed.
        example_input: (N, ...) that the module accepts; it is traced and run with it.
        samples: (N, ...) inputs as they come in use, at least 16, better 500 or more; no labels.
            All of them run through the module at once.

    Other arguments:
        min_ratio: smallest allowed ratio of a group's channels, in (0, 1].
        order: of channels: `"pivoted_cholesky"` for the most informative ones first
            (`rank_channels`), or `"tsp"` for similar neighbours (`tsp_order`), as in the INN
            paper. With reconstructed weights, as here, the first lost fewer points at half of the
            channels and below, and about as many above.
        partition: how channels are sampled; by default nested with `"pivoted_cholesky"`, and
            linear interpolation with `"tsp"`.
        gives_logits: whether outputs (N, K) of K > 1 are logits of classes, which are compared as
            probabilities. False for a regression with several targets, an embedding and the like.

    Raises:
        ModuleError: the module cannot be traced, or has no channels that can be resized.
            Operations that cannot be traced through are not an error: channels that stay at full
            width are in `network.frozen`.
        InputError: there are too few samples, they are all alike or not finite, or the module
            cannot be run on them, or gives numbers that are not finite.
        UnknownNameError: there is no such order.
        WidthsError: `min_ratio` is out of range.
    """
    if order not in ORDERS:
        raise UnknownNameError("order", order, ORDERS)
    check_samples(samples)
    network = IntegralNetwork(module, example_input, min_ratio=min_ratio).eval()
    permute(network, tsp_order(network) if order == "tsp" else rank_channels(network, samples))
    # Quadrature weights, which may differ between positions, are absorbed only now.
    ordered = IntegralNetwork(
        network.module,
        samples[:1],
        partition=partition or ORDERS[order],
        min_ratio=network.min_ratio,
        coupling=network.coupling,
    ).eval()
    reconstructor = Reconstructor.from_samples(ordered, samples)
    converted = ConvertedNetwork(
        ordered, reconstructor, samples, order=order, gives_logits=gives_logits
    )
    _warn_of_one_class(converted.full_outputs(), gives_logits)
    return converted


def _warn_of_one_class(outputs: Tensor, gives_logits: bool) -> None:
    is_classifier = gives_logits and outputs.ndim == 2 and outputs.shape[1] > 1
    if is_classifier and len(outputs.argmax(1).unique()) == 1:
        warnings.warn(
            f"the module puts all {len(outputs)} samples into one class, and narrower networks "
            f"will know little of the others: give samples of all classes, or gives_logits=False "
            f"where outputs are other numbers.",
            stacklevel=3,
        )
