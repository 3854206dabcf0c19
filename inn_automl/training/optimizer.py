"""The optimizer of a recipe, and the precision that its steps compute in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
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
    """The recipe's optimizer, and its parameters by name, in its order.

    The learning rate of a group is the step's, times the group's own `rate`.
    """
    trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    rates = _rates([name for name, _ in trainable], recipe.first_layer_rate)
    by_group: dict[tuple[float, bool], list[tuple[str, Tensor]]] = {}
    for name, parameter in trainable:
        by_group.setdefault((rates[name], parameter.ndim > 1), []).append((name, parameter))
    if recipe.first_layer_rate == 1:
        by_group = {(1.0, decays): by_group.get((1.0, decays), []) for decays in (True, False)}
    groups = [
        {
            "params": [p for _, p in named],
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "rate": rate,
        }
        for (rate, decays), named in by_group.items()
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
    return optimizer, dict(itertools.chain.from_iterable(by_group.values()))


def _rates(names: Sequence[str], first: float) -> dict[str, float]:
    """The learning rate of each parameter as a share of the last layer's: geometric from the first
    layer's on, in the order of the network's definition.

    Parameters that do not belong to a layer, such as width deltas, have the whole rate.
    """
    layers = list(dict.fromkeys(n.rpartition(".")[0] for n in names if n.startswith("module.")))
    position = {layer: i / max(1, len(layers) - 1) for i, layer in enumerate(layers)}
    return {name: first ** (1 - position.get(name.rpartition(".")[0], 1.0)) for name in names}


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
