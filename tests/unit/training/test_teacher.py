from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from inn_automl.integral import IntegralNetwork
from inn_automl.training.teacher import AveragedTeacher


def network() -> IntegralNetwork:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)
    )
    return IntegralNetwork(module, torch.zeros(2, 4))


def stepped(net: IntegralNetwork, change: float) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(change)


def test_it_is_the_exponential_average_of_what_it_took_in() -> None:
    net = network()
    teacher, expected = AveragedTeacher(net, window=20.0), net.module[0].weight.detach().clone()
    for update in range(1, 400):
        stepped(net, 0.01)
        teacher.update(net)
        share = max(1 / 20, 9 / (update + 9))
        expected = expected * (1 - share) + net.module[0].weight.detach() * share
    torch.testing.assert_close(teacher.module[0].weight, expected)
    behind = float((net.module[0].weight - teacher.module[0].weight).detach().mean() / 0.01)
    assert behind == pytest.approx(19, abs=0.1)  # steps: the lag of an average of decay 1 - 1/20


def test_a_window_of_nothing_is_the_network_itself() -> None:
    net = network()
    teacher = AveragedTeacher(net, window=0.0)
    stepped(net, 0.5)
    teacher.update(net)
    for own, other in zip(teacher.module.parameters(), net.module.parameters(), strict=True):
        assert own.equal(other)


def test_it_normalizes_by_the_batch_and_drops_nothing() -> None:
    net = network()
    teacher, x = AveragedTeacher(net, window=5.0), torch.randn(64, 4) * 3 + 1
    first = teacher.outputs(x)
    torch.testing.assert_close(teacher.outputs(x), first)
    plain = copy.deepcopy(net.module)
    plain.train()
    plain[2].eval()
    torch.testing.assert_close(first, plain(x).detach())


def test_it_leaves_the_network_alone() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    teacher = AveragedTeacher(net, window=5.0)
    teacher.update(net)
    assert not teacher.outputs(torch.randn(8, 4)).requires_grad
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
