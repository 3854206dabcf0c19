"""Channels that stay at full width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.integral.zoo.case import CASES, Case, Net, case, conv, head


def around(run: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    """Two convolutions, something, a third convolution: only the first group is free of it."""
    return Net(
        lambda m, x: m.head(m.c(run(m, m.b(F.relu(m.a(x)))))),
        a=conv(3, 6),
        b=conv(6, 8),
        c=conv(8, 4),
        head=head(4),
    )


FREE = {"a": (6, 1), "c": (4, 1)}
STAYS: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "fft": (lambda m, x: torch.fft.fft(x, dim=1).real, "fft"),
    "einsum": (lambda m, x: torch.einsum("nchw,nchw->nchw", x, x), "einsum"),
    "roll_channels": (lambda m, x: torch.roll(x, 1, 1), "roll"),
    "roll_everything": (lambda m, x: torch.roll(x, 1), "roll"),
    "cumulative_sum": (lambda m, x: x.cumsum(1), "cumsum"),
    "flip_channels": (lambda m, x: x.flip(1), "flip"),
    "sort_channels": (lambda m, x: x.sort(1).values, "sort"),
    "number_of_a_channel": (lambda m, x: x * x.max(1, keepdim=True).indices, "gives the number"),
    "softmax_over_channels": (lambda m, x: x.softmax(1), "softmax"),
    "normalize_over_channels": (lambda m, x: F.normalize(x, dim=1), "norm"),
    "sum_over_channels": (lambda m, x: x * x.sum(1, keepdim=True), "sum"),
    "slice_channels": (lambda m, x: torch.cat([x[:, :4], x[:, 4:].relu()], 1), "slice"),
    "pick_channels": (lambda m, x: x[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])], "index"),
    "shift_channels": (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, -1)), "pad"),
    "assign_channels": (
        lambda m, x: x.clone().index_fill_(1, torch.tensor([0]), 0.0),
        "index_fill",
    ),
    "pool_over_channels": (
        lambda m, x: F.avg_pool1d(x.flatten(2).mT, 3, 1, 1).mT.unflatten(2, x.shape[2:]),
        "avg_pool1d",
    ),
    "conv_over_channels": (
        lambda m, x: F.conv3d(x[:, None], torch.ones(1, 1, 3, 1, 1), padding=(1, 0, 0))[:, 0],
        "conv3d",
    ),
    "local_response_norm": (lambda m, x: F.local_response_norm(x, 3), "pad"),
    "constant_tensor": (lambda m, x: x * torch.arange(8.0).view(1, -1, 1, 1), "fixed size"),
    "hard_coded_view": (lambda m, x: x.view(x.shape[0], 8, -1).reshape(x.shape), "view"),
    "hard_coded_heads": (
        lambda m, x: x.view(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
        "shape",
    ),
    "hard_coded_split": (lambda m, x: torch.cat(x.split(4, 1)[::-1], 1), "split"),
    "hard_coded_condition": (
        lambda m, x: x.relu() if x.shape[1] > 7 else x.sigmoid(),
        "takes the place of relu",
    ),
    "hard_coded_mixing": (
        lambda m, x: x.reshape(x.shape[0], 64, -1).transpose(1, 2).reshape(x.shape),
        "slides",
    ),
    "no_grad": (lambda m, x: x * _without_gradients(x), "cannot be traced through"),
}


def _without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.sigmoid()


for _name, (_run, _reason) in STAYS.items():
    CASES[_name] = Case(lambda run=_run: around(run), FREE, frozen={"b": _reason})


@case({"a": 6}, frozen={"lstm": "lstm", "b": "lstm"})
def lstm() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.b(F.relu(m.a(x))).flatten(2).transpose(1, 2)
        return m.fc(m.lstm(x)[0][:, -1])

    return Net(
        run, a=conv(3, 6), b=conv(6, 8), lstm=nn.LSTM(8, 7, batch_first=True), fc=nn.Linear(7, 5)
    )


@case(
    {"a": 6, "fc": 6},
    frozen={"b": "does not run", "attention": "does not run"},
    is_maskable=False,
)
def multi_head_attention_layer() -> nn.Module:
    """torch's own layer compares its input with the size that it was made for."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.b(F.relu(m.a(x))).flatten(2).transpose(1, 2)
        return m.out(F.relu(m.fc((x + m.attention(x, x, x, need_weights=False)[0]).mean(1))))

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    return Net(
        run,
        a=conv(3, 6),
        b=conv(6, 8),
        attention=attention,
        fc=nn.Linear(8, 6),
        out=nn.Linear(6, 5),
    )


@case({"a": 6}, frozen={"b": "shape"})
def hard_coded_flatten() -> nn.Module:
    return Net(
        lambda m, x: m.fc(m.b(F.relu(m.a(x))).view(x.shape[0], 512)),
        a=conv(3, 6),
        b=conv(6, 8),
        fc=nn.Linear(512, 5),
    )


@case({"a": 6, "c": 4})
def two_outputs() -> nn.Module:
    """Channels that the module gives out are not its own to resize; nobody needs to be told."""

    def run(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.b(F.relu(m.a(x)))
        return m.head(F.relu(m.c(x))), x

    return Net(run, a=conv(3, 6), b=conv(6, 8), c=conv(8, 4), head=head(4))


@case({"a": 6})
def residual_on_the_input() -> nn.Module:
    return Net(
        lambda m, x: m.head(x + m.b(F.relu(m.a(x)))), a=conv(3, 6), b=conv(6, 3), head=head(3)
    )


@case({"a": 6}, frozen={"b": "does not run"})
def head_for_training_only() -> nn.Module:
    """The trace of the evaluation mode never sees the second head."""

    def run(m: Any, x: Tensor) -> Any:
        x = m.b(F.relu(m.a(x)))
        return (m.head(x), m.aux(x)) if m.training else m.head(x)

    return Net(run, a=conv(3, 6), b=conv(6, 8), head=head(8), aux=head(8))


@case({"a": 6}, frozen=dict.fromkeys(("b", "c", "c.parametrizations.weight"), "_weight_norm"))
def weight_norm() -> nn.Module:
    """Each weight is computed from two others."""
    return Net(
        lambda m, x: m.head(F.relu(m.c(F.relu(m.b(m.a(x)))))),
        a=conv(3, 6),
        b=conv(6, 8),
        c=nn.utils.parametrizations.weight_norm(conv(8, 8)),
        head=head(8),
    )


@case({"a": 6})
def changes_its_buffers() -> nn.Module:
    """Keeps a moving average of its channels in evaluation mode too."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        m.average.mul_(0.9).add_(x.mean((0, 2, 3)).detach(), alpha=0.1)
        return m.head(x.sub_(1).relu_().add(1))

    module = Net(run, a=conv(3, 6), head=head(6))
    module.register_buffer("average", torch.zeros(6))
    return module


@case({"a": 6, "b": 8}, input=lambda: torch.randn(2, 3, 8, 8, dtype=torch.float64))
def other_types() -> nn.Module:
    return Net(
        lambda m, x: m.head(m.b(F.relu(m.a(x)).float().to(torch.float64))),
        a=conv(3, 6),
        b=conv(6, 8),
        head=head(8),
    ).double()
