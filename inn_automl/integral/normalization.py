"""Normalization statistics of a discretized network.

Running statistics belong to the widths they were collected at: at other widths they are estimated anew from training
samples. J. Yu and T. Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def reestimate_normalization(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replaces running means and variances by their averages over batches.

    Args:
        module: changed in place; layers other than normalization run in evaluation mode.
        batches: (N, ...) inputs as the module takes them; batches of equal size weigh equally.

    Returns:
        Number of samples used; 0 if the module keeps no running statistics.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    if not layers:
        return 0
    modes = {one: one.training for one in module.modules()}
    momenta = {layer: layer.momentum for layer in layers}
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average over all batches
        layer.train()
    num_samples = 0
    try:
        with torch.no_grad():
            for batch in batches:
                module(batch)
                num_samples += len(batch)
    finally:
        for layer in layers:
            layer.momentum = momenta[layer]
        for one, training in modes.items():
            one.training = training
    return num_samples
