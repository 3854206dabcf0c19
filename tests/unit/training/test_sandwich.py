from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.training.sandwich import random_widths, reused_widths, sandwich_gradients


@pytest.fixture
def network() -> IntegralNetwork:
    torch.manual_seed(0)
    return IntegralNetwork(build("signal", (1, 24), 3, width=0.25, depth=3), torch.zeros(2, 1, 24))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(6, 1, 24), torch.tensor([0, 1, 2, 0, 1, 2])


def gradients(network: IntegralNetwork) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    return found


def test_gradients_are_the_sum_over_full_and_reduced_widths(
    network: IntegralNetwork, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    reduced = [network.smallest_widths, network.uniform_widths(0.6)]
    network.train()
    loss = sandwich_gradients(network, x, y, reduced, label_smoothing=0.1, label_fraction=0.3)
    found = gradients(network)

    logits = network(x)
    full = F.cross_entropy(logits, y, label_smoothing=0.1)
    labels = torch.full((6, 3), 0.1 / 3)
    labels[torch.arange(6), y] += 0.9
    targets = 0.7 * logits.detach().softmax(1) + 0.3 * labels
    total = full - sum((targets * network(x, w).log_softmax(1)).sum(1).mean() for w in reduced)
    total.backward()
    assert loss == pytest.approx(full.item())
    assert not loss.requires_grad
    for one, other in zip(found, gradients(network), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_distillation_batch_is_for_the_reduced_widths_only(
    network: IntegralNetwork, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    reduced, teacher = [network.smallest_widths], torch.tensor([[3.0, 0.0, -1.0]]).expand(6, 3)
    network.train()
    distillation_x, labels = 2 * x.flip(0) + 1, (y + 1) % 3
    sandwich_gradients(
        network,
        x,
        y,
        reduced,
        label_fraction=0.3,
        distillation_batch=(distillation_x, labels, teacher),
    )
    found = gradients(network)
    logits = network(x)
    targets = 0.7 * teacher.softmax(1) + 0.3 * F.one_hot(labels, 3)
    total = (
        F.cross_entropy(logits, y)
        - (targets * network(distillation_x, reduced[0]).log_softmax(1)).sum(1).mean()
    )
    total.backward()
    for one, other in zip(found, gradients(network), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_no_gradient_reaches_the_full_width_through_the_soft_targets(
    network: IntegralNetwork, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    classifier = network.module.classifier
    network.train()
    sandwich_gradients(network, x, y, [])
    alone = classifier.weight.grad.clone()
    gradients(network)
    small = network.smallest_widths
    sandwich_gradients(network, x, y, [small])
    with_small = classifier.weight.grad
    used = next(g for g in reversed(network.groups)).allowed.start
    torch.testing.assert_close(with_small[:, used:], alone[:, used:])


def test_reduced_widths_leave_running_statistics_to_the_full_width(
    network: IntegralNetwork, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    sandwich_gradients(network, x, y, [])
    expected = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.load_state_dict(state)
    sandwich_gradients(network, x, y, [network.smallest_widths, network.uniform_widths(0.7)])
    assert any("running_mean" in name for name in expected)
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, expected[name])


def test_half_precision_comes_close(
    network: IntegralNetwork, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    network.train()
    sandwich_gradients(network, x, y, [network.smallest_widths])
    exact = torch.cat([g.flatten() for g in gradients(network)])
    sandwich_gradients(
        network, x, y, [network.smallest_widths], autocast=torch.autocast("cpu", torch.bfloat16)
    )
    coarse = torch.cat([g.flatten() for g in gradients(network)])
    assert coarse.dtype == torch.float32
    assert F.cosine_similarity(exact, coarse, dim=0) > 0.98
    assert not torch.equal(exact, coarse)


def test_channels_of_zeros_run_and_change_nothing(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = batch
    torch.manual_seed(0)
    network = IntegralNetwork(build("signal", (1, 24), 3, depth=3), torch.zeros(2, 1, 24))
    assert network.supports_zero_padding
    sizes: list[int] = []
    last = [layer for layer in network.module.modules() if isinstance(layer, torch.nn.Conv1d)][-1]
    last.register_forward_hook(lambda layer, given, output: sizes.append(output.shape[1]))
    network.train()
    widths = network.uniform_widths(0.6)
    found = []
    for pad_channels in (False, True):
        sandwich_gradients(network, x, y, [widths], pad_channels=pad_channels)
        found.append(gradients(network))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert sizes == [64, 38, 64, 48]


def test_losses_go_through_the_given_backward(
    network: IntegralNetwork, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    network.train()
    sandwich_gradients(network, x, y, [network.smallest_widths])
    plain = gradients(network)
    sandwich_gradients(
        network, x, y, [network.smallest_widths], backward=lambda loss: (8 * loss).backward()
    )
    for one, scaled in zip(plain, gradients(network), strict=True):
        torch.testing.assert_close(8 * one, scaled)


def test_random_widths_cover_each_group_by_itself(network: IntegralNetwork) -> None:
    rng = np.random.default_rng(0)
    drawn = [random_widths(network, rng) for _ in range(400)]
    for group in network.groups:
        assert {widths[group.name] for widths in drawn} == set(group.allowed)
    ratios = [[widths[group.name] / group.size for group in network.groups] for widths in drawn]
    assert abs(np.corrcoef(np.array(ratios).T)[0, 1]) < 0.15
    rng = np.random.default_rng(0)
    assert [random_widths(network, rng) for _ in range(400)] == drawn


def test_drawn_widths_are_used_in_turn_and_then_replaced(network: IntegralNetwork) -> None:
    def stream(num_uses: int) -> list[tuple[int, ...]]:
        drawn = reused_widths(network, np.random.default_rng(0), num_uses)
        return [tuple(widths.values()) for widths in itertools.islice(drawn, 320)]

    found = stream(4)
    pools = [found[start : start + 16] for start in range(0, 320, 64)]
    assert found == [widths for pool in pools for widths in pool * 4]
    assert len({tuple(pool) for pool in pools}) == 5
    assert len(set(found)) <= 80 < len(set(stream(1)))
