"""One step of the sandwich rule with in-place distillation.

The full width learns from the targets; the smallest and a few random widths learn from the full
width's output (Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques",
ICCV 2019): here from that of an average over the latest steps (`training.teacher`), mixed with a
fraction of the targets, and on other samples than the full width has in this step. The task's
objective defines losses and targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inn_automl.tasks import Classification, Objective

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork

Widths = Mapping[str, int]

CLASSIFICATION = Classification()

_MAX_POOL = 16
_POOLED_LAYERS = 128


def random_widths(network: IntegralNetwork, rng: np.random.Generator) -> dict[str, int]:
    """Widths with each group drawn by itself, uniformly from its allowed widths."""
    return {
        group.name: group.allowed[int(rng.integers(len(group.allowed)))] for group in network.groups
    }


def reused_widths(
    network: IntegralNetwork, rng: np.random.Generator, num_uses: int
) -> Iterator[Widths]:
    """Random widths without end: each pool of them is used `num_uses` times before the next one.

    A pool keeps neighbouring steps different; a small one keeps the kernels that were compiled for
    its shapes (three a layer and widths) inside of oneDNN's cache of 1,024.
    """
    num_layers = sum(parameter.ndim > 1 for parameter in network.parameters())
    size = min(_MAX_POOL, max(2, _POOLED_LAYERS // num_layers))
    while True:
        pool = [random_widths(network, rng) for _ in range(size)]
        for _ in range(num_uses):
            yield from pool


def sandwich_gradients(
    network: IntegralNetwork,
    x: Tensor,
    y: Tensor,
    widths: list[Widths],
    *,
    objective: Objective = CLASSIFICATION,
    label_smoothing: float = 0.0,
    label_fraction: float = 0.3,
    distillation_batch: tuple[Tensor, Tensor, Tensor] | None = None,
    autocast: torch.autocast | None = None,
    pad_channels: bool = False,
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
) -> Tensor:
    """Adds the summed gradients of the full width and of all `widths` to the network's parameters.

    Args:
        network: in train mode.
        x: standardized (N, *input_shape).
        y: targets as the objective takes them: class indices (N,), say.
        widths: the reduced widths of this step.
        objective: the task's losses.
        label_fraction: fraction of the targets in the targets of the reduced widths.
        distillation_batch: samples of the reduced widths: x, y, and a teacher's outputs for x;
            None for `x`, `y` and the full width's own.
        autocast: the mixed-precision context of forward passes; None for the network's own
            precision.
        pad_channels: see `IntegralNetwork.forward`.
        backward: propagates a loss, e.g. after scaling it.

    Returns:
        Loss of the full width, a detached scalar.
    """
    context = autocast or torch.autocast(x.device.type, enabled=False)
    with context:
        output = network(x).float()
    loss = objective.loss(output, y, label_smoothing=label_smoothing)
    backward(loss)
    if not widths:
        return loss.detach()
    x, y, teacher_outputs = distillation_batch or (x, y, output)
    with torch.no_grad():
        targets = objective.soft_targets(
            teacher_outputs, y, label_fraction=label_fraction, label_smoothing=label_smoothing
        )
    for reduced in widths:
        with context:
            output = network(x, reduced, pad_channels=pad_channels).float()
        backward(objective.soft_loss(output, targets))
    return loss.detach()
