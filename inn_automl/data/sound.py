"""Random variants of sound that keep its labels true."""

from __future__ import annotations

import torch
from torch import Tensor

SHIFT = 1 / 10
"""Of the length, to either side."""
SNR_DB = (5.0, 40.0)
GAIN_DB = 6.0
_SILENCE = 1e-4
"""Deviation, relative to the dataset's, below which a sample is taken to be silent."""


def augment_sound(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random variant of each sample: shifted, with noise behind it, louder or softer.

    What a shift leaves is filled with zeros, as recordings are where they are shorter than others.
    The noise is white in one half of the samples and brown, louder at low frequencies, in the
    other; its power lies 5 to 40 dB below that of its sample. The gain is up to 6 dB either way.

    Args:
        x: standardized (N, C, L) signals.
        generator: on the CPU, so that the same seed draws the same variants on every device.
    """
    moved = _shifted(x, generator)
    snr_db = SNR_DB[0] + (SNR_DB[1] - SNR_DB[0]) * torch.rand(len(x), 1, 1, generator=generator)
    loudness = x.square().mean((1, 2), keepdim=True).sqrt().clamp_(min=_SILENCE)
    noise = _noise(x.shape, generator) * 10 ** (-snr_db / 20)
    gain_db = GAIN_DB * (2 * torch.rand(len(x), 1, 1, generator=generator) - 1)
    return (moved + noise.to(x.device) * loudness) * (10 ** (gain_db / 20)).to(x.device)


def _shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    length = x.shape[2]
    most = round(SHIFT * length)
    offsets = torch.randint(-most, most + 1, (len(x), 1), generator=generator)
    positions = (torch.arange(length) + offsets).to(x.device)[:, None]
    inside = (positions >= 0) & (positions < length)
    return x.gather(2, positions.clamp(0, length - 1).expand(x.shape)) * inside


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """(N, C, L) of unit variance."""
    noise = torch.randn(shape, generator=generator)
    is_brown = torch.rand(len(noise), generator=generator) < 0.5
    brown = noise[is_brown].cumsum(2)
    brown = brown - brown.mean(2, keepdim=True)
    noise[is_brown] = brown / brown.std(2, keepdim=True, correction=0).clamp_(min=1e-6)
    return noise
