"""Random variants of a batch that keep its labels true. Images are not flipped: a mirrored digit
is another sign.
"""

from __future__ import annotations

import torch
from torch import Tensor

IMAGE_SHIFT = 1 / 8
SIGNAL_SHIFT = 1 / 16
SIGNAL_SCALE = 0.1
SIGNAL_NOISE = 0.05


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random variant of each sample.

    Args:
        x: standardized (N, C, H, W) images or (N, C, L) signals.
        generator: on the CPU, so that the same seed draws the same variants on every device.

    Returns:
        The same shape. Images are shifted by up to 1/8 of each side, which is a random crop after
        padding by the border; signals by up to 1/16 of their length, scaled by 0.9 to 1.1, with
        noise of 0.05 standard deviations.
    """
    if x.ndim == 4:
        return shift_images(x, IMAGE_SHIFT, generator)
    x = shift_signals(x, SIGNAL_SHIFT, generator)
    scale = 1 + SIGNAL_SCALE * (2 * torch.rand(len(x), 1, 1, generator=generator) - 1)
    noise = SIGNAL_NOISE * torch.randn(x.shape, generator=generator)
    return x * scale.to(x.device) + noise.to(x.device)


def shift_images(x: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """(N, C, H, W), each image moved by up to `fraction` of its sides; the border is repeated into
    the gap.
    """
    num, _, height, width = x.shape
    rows = _shifted(num, height, fraction, generator).to(x.device)
    columns = _shifted(num, width, fraction, generator).to(x.device)
    sample = torch.arange(num, device=x.device)
    # Advanced indices around a slice put their dimensions in front: (N, H, W, C).
    return (
        x[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def shift_signals(x: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """(N, C, L), each signal moved by up to `fraction` of its length; the border is repeated into
    the gap.
    """
    positions = _shifted(len(x), x.shape[2], fraction, generator).to(x.device)
    return x.gather(2, positions[:, None, :].expand(x.shape))


def _shifted(num: int, size: int, fraction: float, generator: torch.Generator) -> Tensor:
    """(num, size): for each of `num` samples, where each of `size` positions is read from."""
    most = max(1, round(fraction * size)) if size > 2 else 0
    offsets = torch.randint(-most, most + 1, (num, 1), generator=generator)
    return (torch.arange(size) + offsets).clamp_(0, size - 1)
