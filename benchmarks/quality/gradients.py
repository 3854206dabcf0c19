"""Trainings that the package's own is compared to.

A peer differs from `inn_automl.training.loop.train` in how a step makes its gradients, and in the
partition; initial weights, order, augmentation, optimizer, schedule, clipping, number of steps and
choice of the best epoch are the same. `fit` is the loop of all of them, whatever kind of network a
peer's package makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inn_automl.data import Dataset
from inn_automl.data.augmentation import augment
from inn_automl.evaluation.candidates import (
    count_correct,
    sample_candidate,
)
from inn_automl.integral import IntegralNetwork
from inn_automl.tasks import Task
from inn_automl.training.optimizer import make_optimizer
from inn_automl.training.recipe import Recipe
from inn_automl.training.sandwich import Widths, random_widths, sandwich_gradients
from inn_automl.training.schedule import learning_rate_at

NUM_CALIBRATION_WHILE_TRAINING = 512

Gradients = Callable[[IntegralNetwork, Tensor, Tensor, Recipe, np.random.Generator], None]


def train_peer(
    network: IntegralNetwork,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    gradients: Gradients,
    *,
    validated: list[dict[str, int]] | None = None,
) -> None:
    """Trains in place on the network's device; on return the network holds its best epoch and is
    in eval mode.

    Args:
        validated: the widths by whose accuracy the best epoch is chosen; by default smallest,
            full, and one between.
    """
    device = _device_of(network)
    validation = Task.from_dataset(dataset, device=device).validation
    calibration = Task.from_dataset(dataset, device=device).recalibration_samples(
        NUM_CALIBRATION_WHILE_TRAINING
    )
    chosen = validated or validated_widths(network)

    def score() -> int:
        return sum(
            count_correct(sample_candidate(network, widths, calibration), validation)
            for widths in chosen
        )

    def step(x: Tensor, y: Tensor, rng: np.random.Generator) -> None:
        gradients(network, x, y, recipe, rng)

    optimizer, _ = make_optimizer(network, recipe)
    fit(network, optimizer, dataset, recipe, seed, step, score)


def validated_widths(network: IntegralNetwork) -> list[dict[str, int]]:
    """Smallest, middle and full: those by which the best epoch of a network of many widths is
    chosen.
    """
    middle = {group.name: group.allowed[len(group.allowed) // 2] for group in network.groups}
    return [network.smallest_widths, middle, network.full_widths]


def fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    step: Callable[[Tensor, Tensor, np.random.Generator], None],
    score: Callable[[], int],
) -> None:
    """Trains in place on the network's device; on return the network holds its best epoch and is
    in eval mode.

    Args:
        step: makes the gradients of a batch (N, *input_shape) with classes (N,).
        score: of an epoch; the more the better, and the last of equals is kept.
    """
    samples = Task.from_dataset(dataset, device=_device_of(network)).train
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    steps_per_epoch = len(samples) // recipe.batch_size
    best: dict[str, Tensor] = {}
    best_score = -math.inf
    for epoch in range(1, recipe.epochs + 1):
        order_seed, width_seed, _ = np.random.SeedSequence((seed, epoch)).generate_state(3).tolist()
        generator, rng = (
            torch.Generator().manual_seed(order_seed),
            np.random.default_rng(width_seed),
        )
        order = torch.randperm(len(samples), generator=generator)
        network.train()
        for index in range(steps_per_epoch):
            chosen = order[index * recipe.batch_size : (index + 1) * recipe.batch_size]
            x, y = samples.standardized(chosen), samples.y[chosen]
            if recipe.augment:
                x = augment(x, generator)
            now = (epoch - 1) * steps_per_epoch + index
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(recipe, now, recipe.epochs * steps_per_epoch)
            optimizer.zero_grad(set_to_none=True)
            step(x, y, rng)
            if recipe.max_gradient_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.max_gradient_norm)
            optimizer.step()
        if (reached := score()) >= best_score:
            best_score = reached
            best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(best)
    network.eval()


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def us_net(
    network: IntegralNetwork, x: Tensor, y: Tensor, recipe: Recipe, rng: np.random.Generator
) -> None:
    """The sandwich rule as published: one random share for all layers of a sub-network, soft
    targets alone.

    J. Yu and T. Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV
    2019, sections 3.2, 3.3.
    """
    shares = rng.uniform(network.min_ratio, 1.0, recipe.num_random_widths)
    widths: list[Widths] = [
        network.smallest_widths,
        *(network.uniform_widths(float(share)) for share in shares),
    ]
    sandwich_gradients(
        network, x, y, widths, label_smoothing=recipe.label_smoothing, label_fraction=0.0
    )


def us_net_by_layer(
    network: IntegralNetwork, x: Tensor, y: Tensor, recipe: Recipe, rng: np.random.Generator
) -> None:
    """A US-Net whose random widths are drawn for every layer by itself."""
    widths: list[Widths] = [network.smallest_widths]
    widths += [random_widths(network, rng) for _ in range(recipe.num_random_widths)]
    sandwich_gradients(
        network, x, y, widths, label_smoothing=recipe.label_smoothing, label_fraction=0.0
    )


def inn_paper(
    network: IntegralNetwork, x: Tensor, y: Tensor, recipe: Recipe, rng: np.random.Generator
) -> None:
    """One random size of every layer a step, labels alone (Solodskikh et al., CVPR 2023, section
    4).
    """
    logits = network(x, random_widths(network, rng))
    F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing).backward()


def plain(
    network: IntegralNetwork, x: Tensor, y: Tensor, recipe: Recipe, rng: np.random.Generator
) -> None:
    """An ordinary training of the full width."""
    F.cross_entropy(network(x), y, label_smoothing=recipe.label_smoothing).backward()
