"""Several processes as one training: each takes its fraction of every batch, and all take the same
step.

The processes are those of torch.distributed's default group; without one, this process is the only
one. Gradients, the loss and batch statistics are summed over the group, so that a step is that of
one process up to rounding. Processes decide nothing by their own clock or disk: the first one
decides for all.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def num_workers() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def broadcast_value(value: float) -> float:
    """The first process's value, in all of them.

    Args:
        value: exact as a double.
    """
    if num_workers() == 1:
        return value
    # NCCL communicates between GPUs only.
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Copies tensors of the first process into those of the others, in place."""
    if num_workers() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def local_slice(num_samples: int) -> slice:
    """The samples of a batch that this process takes; sizes differ by one sample at most."""
    size, own = num_workers(), rank()
    return slice(num_samples * own // size, num_samples * (own + 1) // size)


def sum_gradients(parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
    """Sums gradients over the processes, in place and in one message; the sum of the losses too.

    Returns:
        The summed loss, detached.
    """
    if num_workers() == 1:
        return loss
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat(
        [loss.detach().reshape(1).float(), *(g.reshape(-1).float() for g in gradients)]
    )
    dist.all_reduce(flat)
    summed, *pieces = flat.split([1, *(g.numel() for g in gradients)])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
    return summed[0]


@contextlib.contextmanager
def synchronized_batch_norm(module: nn.Module) -> Iterator[None]:
    """While inside, batch normalization in train mode takes its statistics from the batches of all
    processes.

    torch.nn.SyncBatchNorm does so on GPUs only.
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)] if num_workers() > 1 else []
    for layer in layers:
        layer.forward = functools.partial(_normalized, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _normalized(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Output of `layer.forward`, with the mean and variance of all processes' samples."""
    if not layer.training and layer.track_running_stats:
        return type(layer).forward(layer, x)
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    values = x.float()
    count = torch.tensor([values.numel() // values.shape[1]], dtype=torch.float32, device=x.device)
    # The mean first: the variance as a difference of large sums would lose digits.
    totals = differentiable.all_reduce(torch.cat([values.sum(axes), count]))
    num_values = totals[-1].detach()
    mean = totals[:-1] / num_values
    centred = values - mean.view(shape)
    variance = differentiable.all_reduce(centred.square().sum(axes)) / num_values
    if layer.training and layer.track_running_stats:
        _update_running(layer, mean.detach(), variance.detach() * (num_values / (num_values - 1)))
    y = centred * torch.rsqrt(variance + layer.eps).view(shape)
    if layer.affine:
        y = torch.addcmul(layer.bias.view(shape), y, layer.weight.view(shape))
    return y.to(x.dtype)


def _update_running(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert (
        layer.running_mean is not None
        and layer.running_var is not None
        and layer.num_batches_tracked is not None
    )
    layer.num_batches_tracked.add_(1)
    momentum = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance, momentum)
