"""Variants of sound."""

from __future__ import annotations

import torch

from inn_automl.data.sound import GAIN_DB, SHIFT, SNR_DB, augment_sound


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_gives_the_same_variants() -> None:
    x = torch.randn(4, 2, 400, generator=seeded())
    once = augment_sound(x, seeded(1))
    assert once.shape == x.shape
    assert torch.equal(once, augment_sound(x, seeded(1)))
    assert not torch.equal(once, augment_sound(x, seeded(2)))


def test_noise_and_gain_stay_in_their_ranges() -> None:
    x = torch.sin(2 * torch.pi * torch.arange(4000) / 8).expand(200, 1, 4000).contiguous()
    middle = augment_sound(x, seeded())[:, 0, 600:3400]
    # The sine has 350 whole periods in the middle: all its power is at one frequency.
    spectrum = torch.fft.rfft(middle).abs().square()
    sine = spectrum[:, 350].clone()
    gain_db = 10 * torch.log10(sine / (2800 / 2) ** 2)
    assert -GAIN_DB - 0.5 < float(gain_db.min()) < -GAIN_DB / 2
    assert GAIN_DB / 2 < float(gain_db.max()) < GAIN_DB + 0.5
    spectrum[:, 350] = 0
    snr_db = 10 * torch.log10(sine / spectrum.sum(1))
    assert SNR_DB[0] - 2 < float(snr_db.min()) < SNR_DB[0] + 4
    assert float(snr_db.max()) > SNR_DB[1] - 4


def test_a_shift_fills_with_silence() -> None:
    x = torch.ones(100, 1, 200)
    found = augment_sound(x, seeded())
    borders = (found[:, 0, :1].abs(), found[:, 0, -1:].abs())
    silent = [(border < 0.3).float().mean() for border in borders]
    assert all(0.2 < float(share) < 0.6 for share in silent)
    inside = found[:, 0, round(200 * SHIFT) : -round(200 * SHIFT)]
    assert float(inside.mean()) > 0.8


def test_silence_stays_silent() -> None:
    assert float(augment_sound(torch.zeros(8, 1, 100), seeded()).abs().max()) < 1e-2
