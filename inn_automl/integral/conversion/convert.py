"""Conversion: a network that was trained at full width only becomes one that can be sampled at any
width, untrained.

Channels are put in order (`channel_ranking`, or `tsp_ordering`); at each width the weights are fitted to what the
full width computes (`compensation`) and normalization statistics are re-estimated. A few hundred
samples, no labels, no gradient step.
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
"""How channels can be put in order, and the partition that served each order best
(docs/explanation/theory.md).
"""
_BATCH = 256


class ConvertedNetwork:
    """A trained module that can be discretized at any widths.

    Attributes:
        network: the module as an integral network, its channels in order; at full width it
            computes what it did.

    Use `convert` to make one.
    """

    def __init__(
        self, network: IntegralNetwork, samples: Tensor, *, gives_logits: bool = True
    ) -> None:
        self.network = network
        self._gives_logits = gives_logits
        self._samples = samples
        self._reconstructor = Reconstructor(network, samples)
        module = network.discretize(network.full_widths).eval()
        self._wanted = self._outputs(module)
        is_classifier = gives_logits and self._wanted.ndim == 2 and self._wanted.shape[1] > 1
        if is_classifier and len(self._wanted.argmax(1).unique()) == 1:
            warnings.warn(
                f"the module puts all {len(samples)} samples into one class, and "
                f"narrower networks "
                "will know little of the others: give samples of all classes, or "
                "gives_logits=False where outputs are "
                "other numbers.",
                stacklevel=3,
            )

    def discretize(self, widths: Mapping[str, int]) -> nn.Module:
        """A plain module at the widths, in evaluation mode, with weights and statistics of its
        own.

        Of the fits by `RECONSTRUCTION_RULES`, the one whose outputs are nearest to those of the full
        width on the samples.

        Raises:
            WidthsError: see `IntegralNetwork.check_widths`.
        """
        if self.network.check_widths(widths) == self.network.full_widths:
            return self.network.discretize(widths).eval()
        found = []
        for rule in RECONSTRUCTION_RULES:
            module = self._reconstructor.discretize(widths, rule)
            recalibrate_batch_norm(module, self._samples.split(_BATCH))
            module.eval()
            found.append((float((self._outputs(module) - self._wanted).square().mean()), module))
        return min(found, key=lambda one: one[0])[1]

    def _outputs(self, module: nn.Module) -> Tensor:
        """What a module makes of the samples, as probabilities where it gives logits
        (N, classes).
        """
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
    """Makes a trained module one that can be discretized at any widths, without training it.

    Warns where a classifier puts all samples into one class: what it knows of others
    would be lost.

    Args:
        module: any torch module that maps one tensor to one; copied, never changed.
        example_input: (N, ...) that the module accepts; it is traced and run with it.
        samples: (N, ...) inputs as they come in use, 500 or more are best, 16 the least; no
            labels. All of them run through the module at once.
        min_ratio: smallest allowed share of a group's channels, in (0, 1].
        order: `"pivoted_cholesky"`: those that tell most first (`rank_channels`), or `"tsp"`:
            neighbours are alike (`tsp_order`), as the INN paper has it. With fitted weights,
            as here, the first lost fewer points at half of the channels and below, and about as
            many above.
        partition: how channels are sampled; by default nested with pivots, and linear point
            samples along a path.
        gives_logits: whether outputs (N, K) of K > 1 are logits of classes, which are compared as
            probabilities. False for a regression with several targets, an embedding and the like.
            Other outputs never are.

    Raises:
        ModuleError: the module cannot be traced, or has no channels that can be resized.
            Operations that cannot be followed are not an error: what stays at full width is in
            `network.frozen`.
        InputError: there are too few samples, they are all alike or not finite, or the
            module cannot be run on them, or makes numbers of them that are not finite.
        UnknownNameError: there is no such order.
        WidthsError: `min_ratio` is out of range.
    """
    if order not in ORDERS:
        raise UnknownNameError("order", order, ORDERS)
    check_samples(samples)
    network = IntegralNetwork(module, example_input, min_ratio=min_ratio).eval()
    permute(network, tsp_order(network) if order == "tsp" else rank_channels(network, samples))
    # Channels are in order before their quadrature weights, which may differ from place to place,
    # are absorbed.
    ordered = IntegralNetwork(
        network.module,
        example_input,
        partition=partition or ORDERS[order],
        min_ratio=min_ratio,
        coupling=network.coupling,
    )
    return ConvertedNetwork(ordered.eval(), samples, gives_logits=gives_logits)
