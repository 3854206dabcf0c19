"""The speed of a network's training on this machine, before there are samples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from inn_automl.core.metric import TaskKind
from inn_automl.evaluation.candidates import use_channels_last
from inn_automl.models import build

if TYPE_CHECKING:
    from inn_automl.core.spec import TrainingBudget

_BATCH_SIZE = {"cpu": 8, "cuda": 64}
_NUM_TIMED = 2


def seconds_per_sample(
    model: str,
    input_shape: tuple[int, ...],
    num_outputs: int,
    task: TaskKind,
    budget: TrainingBudget,
) -> float | None:
    """Seconds that a forward and a backward pass at full width take for one sample.

    Args:
        model: name of a family or of the zoo.
        budget: whose processors or GPUs train.

    Returns:
        The seconds, of processors and GPUs that the budget has; None where it has GPUs and this
        machine has none.
    """
    if budget.gpus and not torch.cuda.is_available():
        return None
    device = "cuda" if budget.gpus else "cpu"
    threads = torch.get_num_threads()
    torch.set_num_threads(budget.cpus)
    try:
        with torch.random.fork_rng(devices=[]):
            module = build(model, input_shape, num_outputs, task=task).to(device).train()
            x = torch.randn(_BATCH_SIZE[device], *input_shape, device=device)
        use_channels_last(module, x)
        times = [_step_s(module, x) for _ in range(1 + _NUM_TIMED)]
    finally:
        torch.set_num_threads(threads)
    return min(times[1:]) / len(x)


def _step_s(module: torch.nn.Module, x: torch.Tensor) -> float:
    started_at = time.perf_counter()
    module(x).square().sum().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started_at
