"""Batch-norm recalibration of discretized networks.

Running statistics belong to the widths they were collected at: at other widths they are estimated
again from training samples. J. Yu and T. Huang, "Universally Slimmable Networks and Improved
Training Techniques", ICCV 2019, section 3.4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from inn_automl.core.errors import InputError
from inn_automl.integral.modes import evaluating


def recalibrate_batch_norm(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces running means and variances by their averages over batches, weighted by batch size.

    Args:
        module: changed in place; layers other than normalization run in evaluation mode.
        batches: (N, ...) inputs as the module takes them.

    Returns:
        Number of samples used; 0 if the module keeps no running statistics.

    Raises:
        InputError: there are statistics to estimate and no samples.
    """
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, _NormBase) and layer.track_running_stats
    ]
    if not layers:
        return 0
    num_samples = 0
    with torch.no_grad(), evaluating(module), _averaging(layers):
        for layer in layers:
            layer.train()
        for batch in batches:
            if not num_samples:
                for layer in layers:
                    layer.reset_running_stats()
            module(batch)
            num_samples += len(batch)
    if not num_samples:
        raise InputError(
            "batch norm was to be recalibrated from no samples: give at least one batch."
        )
    return num_samples


@contextlib.contextmanager
def _averaging(layers: Sequence[_NormBase]) -> Iterator[None]:
    """Gives layers, before each batch, the momentum with which running statistics are averages."""
    momenta = {layer: layer.momentum for layer in layers}
    num_seen = dict.fromkeys(layers, 0)

    def average(layer: Any, arguments: tuple[Tensor, ...]) -> None:
        size = len(arguments[0])
        num_seen[layer] += size
        layer.momentum = size / num_seen[layer]

    hooks = [layer.register_forward_pre_hook(average) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in momenta.items():
            layer.momentum = momentum
