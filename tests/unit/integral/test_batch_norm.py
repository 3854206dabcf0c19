from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from inn_automl.core.errors import InputError
from inn_automl.integral import IntegralNetwork, recalibrate_batch_norm


def module_with_norm() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
    )


def test_statistics_are_means_over_samples() -> None:
    module = module_with_norm()
    x = torch.randn(50, 3)
    assert recalibrate_batch_norm(module, [x[:20], x[20:40], x[40:]]) == 50
    hidden = module[0](x).detach()
    torch.testing.assert_close(module[1].running_mean, hidden.mean(0))
    batches = [(20, hidden[:20]), (20, hidden[20:40]), (10, hidden[40:])]
    torch.testing.assert_close(module[1].running_var, sum(n * h.var(0) for n, h in batches) / 50)


def test_what_was_there_before_does_not_count() -> None:
    module, x = module_with_norm(), torch.randn(30, 3)
    recalibrate_batch_norm(module, [x])
    expected = module[5].running_var.clone()
    module[1].running_mean.fill_(100)
    module[5].running_var.fill_(1e6)
    recalibrate_batch_norm(module, [x])
    torch.testing.assert_close(module[5].running_var, expected)


def test_modes_momenta_and_parameters_stay() -> None:
    module = module_with_norm()
    module[1].eval()
    module[1].momentum, module[5].momentum = 0.3, None
    before = [p.detach().clone() for p in module.parameters()]
    recalibrate_batch_norm(module, [torch.randn(8, 3)])
    assert (module.training, module[1].training, module[5].training) == (True, False, True)
    assert (module[1].momentum, module[5].momentum) == (0.3, None)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert not module[1]._forward_pre_hooks


def test_a_layer_that_runs_twice_averages_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) + self.norm(2 * x)

    module, x = Twice(), torch.randn(40, 3)
    recalibrate_batch_norm(module, [x[:20], x[20:]])
    torch.testing.assert_close(module.norm.running_mean, x.mean(0) * 1.5)


def test_without_statistics_nothing_is_run() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))
    assert recalibrate_batch_norm(module, iter(())) == 0


def test_no_samples() -> None:
    module = module_with_norm()
    module[1].running_mean.fill_(3)
    with pytest.raises(InputError, match="from no samples"):
        recalibrate_batch_norm(module, [])
    assert module[1].running_mean.tolist() == [3, 3, 3, 3]


def test_a_reduced_network_gets_statistics_of_its_own() -> None:
    module, x = module_with_norm(), torch.randn(64, 3) * 3 + 1
    network = IntegralNetwork(module, x[:2])
    assert network.full_widths == {"0": 4}
    plain: Any = network.discretize({"0": 2})
    recalibrate_batch_norm(plain, [x])
    plain.eval()
    normalized = plain[1](plain[0](x))
    torch.testing.assert_close(normalized.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalized.std(0), torch.ones(2), atol=1e-3, rtol=0)
