"""Two processes that train together take the steps of one."""

from __future__ import annotations

import functools
import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from inn_automl.data import Dataset
from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.tasks import Task
from inn_automl.training import loop
from inn_automl.training.distributed import (
    broadcast_value,
    local_slice,
    rank,
    sum_gradients,
    synchronized_batch_norm,
)
from inn_automl.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch_size=17, learning_rate=0.05)  # 17: the shares differ


def together(
    work: Callable[..., Any], folder: Path, *arguments: Any, num_workers: int = 2
) -> list[Any]:
    """What `work` returns in each of the processes."""
    context = multiprocessing.get_context("spawn")
    target = functools.partial(_one, work, folder, num_workers, arguments)
    processes = [context.Process(target=target, args=(i,)) for i in range(num_workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    errors = [path.read_text() for path in folder.glob("error-*")]
    assert not errors, errors[0]
    return [torch.load(folder / f"result-{i}", weights_only=True) for i in range(num_workers)]


def _one(
    work: Callable[..., Any], folder: Path, num_workers: int, arguments: Any, index: int
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder / 'meet'}", rank=index, world_size=num_workers
        )
        torch.save(work(*arguments), folder / f"result-{index}")
    except Exception:
        (folder / f"error-{index}").write_text(traceback.format_exc())
    finally:
        dist.destroy_process_group()


def train(dataset: Dataset, checkpoint: Path | None, epochs: int | None) -> dict[str, Any]:
    """State and losses after all epochs, or after an interruption."""
    torch.manual_seed(0)
    network = IntegralNetwork(
        build("signal", dataset.input_shape, len(dataset.classes), width=0.25, depth=2),
        torch.zeros(2, 1, 24),
    )

    def interrupt(report: loop.EpochReport) -> None:
        if report.epoch == epochs:
            raise InterruptedError

    try:
        result = loop.train(
            network,
            Task.from_dataset(dataset),
            RECIPE,
            seed=1,
            checkpoint=checkpoint,
            on_epoch=interrupt,
        )
    except InterruptedError:
        return {}
    return {
        "state": network.state_dict(),
        "losses": [report.train_loss for report in result.history],
    }


def resumed(dataset: Dataset, checkpoint: Path) -> dict[str, Any]:
    train(dataset, checkpoint, 1)
    dist.barrier()
    return train(dataset, checkpoint, None)


def batch_norm(x: torch.Tensor, steps: int) -> dict[str, Any]:
    layer = nn.BatchNorm1d(x.shape[1])
    torch.nn.init.uniform_(layer.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(0))
    mine = x[local_slice(len(x))].clone().requires_grad_()
    with synchronized_batch_norm(layer):
        for _ in range(steps):
            y = layer(mine)
        loss = (y**3).sum() / y[0].numel() / len(x)
        loss.backward()
    total = sum_gradients(list(layer.parameters()), loss)
    return {
        "y": y.detach(),
        "loss": total.detach(),
        "input": mine.grad,
        **{name: p.grad for name, p in layer.named_parameters()},
        **layer.state_dict(prefix="state."),
    }


def shares(value: float) -> list[float]:
    return [
        broadcast_value(value + rank()),
        *torch.arange(7)[local_slice(7)].tolist(),
    ]


@pytest.mark.parametrize("shape", [(9, 4), (9, 4, 5)])
def test_batch_normalization_is_that_of_the_whole_batch(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    x = 30 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    whole = batch_norm(x, 3)
    parts = together(batch_norm, tmp_path, x, 3)
    for name in ("y", "input"):
        torch.testing.assert_close(
            torch.cat([part[name] for part in parts]), whole[name], rtol=1e-4, atol=1e-5
        )
    for name in whole.keys() - {"y", "input"}:
        assert torch.equal(parts[0][name], parts[1][name])
        torch.testing.assert_close(parts[0][name], whole[name], rtol=1e-4, atol=1e-5)


def test_two_processes_end_where_one_does_also_after_an_interruption(
    signals: Dataset, tmp_path: Path
) -> None:
    alone = train(signals, None, None)
    (tmp_path / "pair").mkdir()
    one, other = together(resumed, tmp_path / "pair", signals, tmp_path / "checkpoint")
    assert all(torch.equal(one["state"][name], other["state"][name]) for name in one["state"])
    assert one["losses"] == other["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for name, value in alone["state"].items():
        torch.testing.assert_close(one["state"][name], value, rtol=1e-3, atol=1e-4)


def test_the_first_process_decides_and_every_sample_is_somebodys(tmp_path: Path) -> None:
    assert together(shares, tmp_path, 0.1) == [[0.1, 0, 1, 2], [0.1, 3, 4, 5, 6]]
