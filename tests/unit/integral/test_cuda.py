from __future__ import annotations

import pytest
import torch
from torch import nn

from inn_automl.integral import CellAverages, IntegralNetwork, Nested, Partition, Trainable, Uniform
from tests.unit.integral.oracle import assert_same
from tests.unit.integral.zoo import conv, head

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NO GPU: sampling on CUDA is not tested here"
)


@pytest.mark.parametrize(
    "partition",
    [Nested(), Nested("van_der_corput"), CellAverages(), Uniform(), Trainable(5)],
    ids=str,
)
def test_the_same_as_on_the_cpu(partition: Partition) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8, 8, groups=8), conv(8, 8), head(8))
    x = torch.randn(2, 3, 8, 8)
    network = IntegralNetwork(module, x, partition=partition)
    widths = {"0": 5, "3": 5}
    expected = network.eval()(x, widths)
    network.to("cuda")
    assert_same(network(x.cuda(), widths).cpu(), expected, 1e-3)
    assert_same(network.discretize(widths).eval()(x.cuda()).cpu(), expected, 1e-3)
    network.train()(x.cuda(), widths).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.is_cuda for parameter in network.parameters()
    )
    on_gpu = IntegralNetwork(
        module.cuda(), x.cuda(), partition={"0": Trainable(5), "3": Trainable(5)}
    )
    assert {parameter.device.type for parameter in on_gpu.parameters()} == {"cuda"}
