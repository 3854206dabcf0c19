"""A network of two coupled groups that tests of networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.integral.oracle import randomized
from tests.unit.integral.zoo import Net, conv, head

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def make() -> nn.Module:
    torch.manual_seed(0)
    return randomized(
        Net(
            lambda m, x: m.head(F.relu(m.norm(m.c(F.relu(m.b(m.a(x))))))),
            a=conv(3, 8),
            b=conv(8, 8, groups=8),
            c=conv(8, 12),
            norm=nn.BatchNorm2d(12),
            head=head(12),
        )
    )


SMALL = {"a": 5, "c": 7}
