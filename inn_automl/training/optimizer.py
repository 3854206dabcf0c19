"""The optimizer of a recipe, and the precision that its steps compute in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inn_automl.integral.conversion.channel_ranking import permute_tensors
from inn_automl.training.recipe import Recipe

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.integral.graph.groups import Coupling


def make_optimizer(
    network: IntegralNetwork, recipe: Recipe
) -> tuple[torch.optim.Optimizer, dict[str, Tensor]]:
    """The recipe's optimizer, and its parameters by name, in its order."""
    trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [(name, p) for name, p in trainable if p.ndim > 1]
    plain = [(name, p) for name, p in trainable if p.ndim <= 1]
    groups = [
        {"params": [p for _, p in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for _, p in plain], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        optimizer = torch.optim.SGD(
            groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov
        )
    else:
        optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.999)
        )
    return optimizer, dict([*decayed, *plain])


def permute_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    coupling: Coupling,
    order: Mapping[str, Tensor],
) -> None:
    """Permutes the channels of an optimizer's state as those of its parameters were.

    Args:
        parameters: of an integral network, by name.
        coupling: of the network.
        order: new order of each coupled group.
    """
    prefix = "module."
    named = {
        name.removeprefix(prefix): p for name, p in parameters.items() if name.startswith(prefix)
    }
    for key in {key for state in optimizer.state.values() for key in state}:
        states = {
            name: optimizer.state[p].get(key) for name, p in named.items() if p in optimizer.state
        }
        shaped = {
            name: state
            for name, state in states.items()
            if isinstance(state, Tensor) and state.ndim > 0
        }
        permute_tensors(coupling, shaped, order)


def mixed_precision(
    recipe: Recipe, device: torch.device
) -> tuple[torch.autocast | None, torch.amp.GradScaler]:
    """The autocast context, and the gradient scaler that float16 needs (bfloat16 has the range of
    float32).
    """
    if device.type != "cuda" or not recipe.mixed_precision:
        return None, torch.amp.GradScaler("cpu", enabled=False)
    dtype = (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )
    return torch.autocast("cuda", dtype), torch.amp.GradScaler(
        "cuda", enabled=dtype is torch.float16
    )
