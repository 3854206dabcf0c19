"""A new head on pretrained features: fitted before the rest of the network moves.

A head that starts at random sends random gradients through features that are worth keeping
(A. Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-
Distribution", ICLR 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Objective, StandardizedSamples

RIDGE = 1e-3
"""Weight of the squared norm of the head's weights in its loss."""
MAX_STEPS = 50
"""Of L-BFGS, each of which takes milliseconds."""


def fit_head(network: IntegralNetwork, samples: StandardizedSamples, num_samples: int) -> bool:
    """Fits the last linear layer to the features of the others, which stay.

    Args:
        network: on the samples' device; changed in place.
        samples: the training split, in a random order.
        num_samples: the first so many are used, as evaluation sees them.

    Returns:
        Whether there is such a layer whose outputs are the network's.
    """
    head = _head(network.module)
    if head is None:
        return False
    was_training = network.training
    network.eval()
    features, targets = _features(network.module, head, samples, num_samples)
    network.train(was_training)
    if features is None or features.ndim != 2:
        return False
    with torch.no_grad():
        head.weight.zero_()
        if head.bias is not None:
            head.bias.zero_()
    _minimize(head, features, samples.objective, targets)
    return True


def _head(module: nn.Module) -> nn.Linear | None:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers and layers[-1].weight.requires_grad else None


def _features(
    module: nn.Module, head: nn.Linear, samples: StandardizedSamples, num_samples: int
) -> tuple[Tensor | None, Tensor]:
    """Inputs of the head (n, features), None where its output is not the module's; and targets."""
    found: list[Tensor] = []
    outputs: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(inputs[0])
        outputs.append(output)

    handle = head.register_forward_hook(record)
    targets, batch = [], min(32, num_samples)
    try:
        with torch.no_grad():
            for start in range(0, min(num_samples, len(samples)), batch):
                rows = slice(start, min(start + batch, num_samples, len(samples)))
                made = module(samples.standardized(rows))
                if len(outputs) != 1 or made.data_ptr() != outputs[0].data_ptr():
                    return None, torch.empty(0)
                outputs.clear()
                targets.append(samples.objective.targets(samples.y[rows]))
    finally:
        handle.remove()
    return torch.cat(found).float(), torch.cat(targets)


def _minimize(head: nn.Linear, features: Tensor, objective: Objective, targets: Tensor) -> None:
    parameters = [head.weight] if head.bias is None else [head.weight, head.bias]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=MAX_STEPS, line_search_fn="strong_wolfe", history_size=10
    )

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = objective.loss(head(features), targets) + RIDGE * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.zero_grad(set_to_none=True)
