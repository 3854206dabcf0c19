"""Log-mel spectrogram as a layer: from samples of sound to the logarithm of their power by time and
band.

The exported graph has it as convolutions, products and a logarithm, which every runtime has. What
it computes is fixed: its tensors are buffers, and stay out of the coupled groups.

Bands follow the mel scale (Stevens, Volkmann and Newman, 1937) in the formula of O'Shaughnessy
("Speech communication", 1987). Masks in training are those of SpecAugment (Park et al., Interspeech
2019).
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

WINDOW_S, STEP_S = 0.025, 0.010
NUM_BANDS = 40
LOWEST_HZ = 20.0
UNKNOWN_RATE_WINDOWS = 100
"""Windows in a signal whose sample rate is not known."""
SMALLEST_UNKNOWN_WINDOW = 32
"""Samples of a window then, where a signal has four times as many: fewer tell no bands apart."""
FLOOR = 1e-6
"""Power below which nothing is told apart, relative to that of the dataset: 60 dB."""
NUM_MASKS = 2
LARGEST_MASKED_BANDS = 1 / 5
LARGEST_MASKED_TIME = 1 / 5


class LogMel(nn.Module):
    """Log power of a signal by band and window, less its mean over both.

    The mean is each sample's own, so that loudness makes no difference. In training mode two random
    runs of bands and two of windows are set to that mean, in each sample others, by torch's global
    random state.

    Args:
        length: samples of a signal.
        sample_rate_hz: chooses windows of 25 ms every 10 ms, and bands from 20 Hz to half of it;
            None for about 100 windows in the signal, whatever their time.
        num_bands: fewer where the windows are too short to tell so many apart.

    Attributes:
        window: samples of a window.
        step: samples between the starts of two windows.
        num_bands: bands of the output.
        num_windows: windows of the output.
    """

    cosines: Tensor
    sines: Tensor
    bands: Tensor

    def __init__(
        self, length: int, sample_rate_hz: int | None = None, *, num_bands: int = NUM_BANDS
    ) -> None:
        super().__init__()
        rate = sample_rate_hz or length / (UNKNOWN_RATE_WINDOWS * STEP_S)
        window = round(WINDOW_S * rate)
        if sample_rate_hz is None:
            window = max(window, min(SMALLEST_UNKNOWN_WINDOW, length // 4))
        self.window = max(1, min(length, window))
        self.step = max(1, round(STEP_S * rate))
        self.num_windows = 1 + (length - self.window) // self.step
        bands = mel_bands(self.window, rate, num_bands)
        self.num_bands = len(bands)
        cosines, sines = fourier_kernels(self.window)
        # Computed again wherever the module is built: none of it belongs into a file of weights.
        self.register_buffer("cosines", cosines[:, None, None], persistent=False)
        self.register_buffer("sines", sines[:, None, None], persistent=False)
        self.register_buffer("bands", bands, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L) of unit variance -> (N, C, bands, windows)."""
        with _full_precision(x):
            logarithms = self._logarithms(x.to(torch.promote_types(x.dtype, torch.float32)))
        logarithms = logarithms - logarithms.mean((2, 3), keepdim=True)
        return self._masked(logarithms) if self.training else logarithms

    def _logarithms(self, x: Tensor) -> Tensor:
        power = self._convolved(x) if torch.compiler.is_exporting() else self._transformed(x)
        return torch.log(torch.matmul(self.bands, power) + FLOOR)

    def _convolved(self, x: Tensor) -> Tensor:
        """Power (N, C, frequencies, windows) as runtimes compute it."""
        # An image of one row a channel, so that all channels share the kernels.
        rows = x.unsqueeze(1)
        real, imaginary = (
            torch.conv2d(rows, kernels, stride=(1, self.step))
            for kernels in (self.cosines, self.sines)
        )
        return (real * real + imaginary * imaginary).transpose(1, 2)

    def _transformed(self, x: Tensor) -> Tensor:
        """The same by fast Fourier transform: four times as fast on a CPU."""
        hann = self.cosines[0, 0, 0]  # the cosine of frequency 0 is 1
        spectrum = torch.fft.rfft(x.unfold(2, self.window, self.step) * hann)
        return (spectrum.real.square() + spectrum.imag.square()).transpose(2, 3)

    def _masked(self, x: Tensor) -> Tensor:
        kept = torch.ones_like(x[:, :1])
        for axis, share in ((2, LARGEST_MASKED_BANDS), (3, LARGEST_MASKED_TIME)):
            for _ in range(NUM_MASKS):
                kept = kept * _kept(x, axis, share)
        return x * kept


def fourier_kernels(window: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the discrete Fourier transform of a Hann window: (frequencies,
    window) each.

    White noise of unit variance has the power 1 at each frequency.
    """
    time = torch.arange(window, dtype=torch.float64)
    frequency = torch.arange(window // 2 + 1, dtype=torch.float64)
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64) if window > 1 else time + 1
    hann = hann / hann.square().sum().sqrt()
    # Reduced before it is multiplied: the phase stays exact.
    phase = 2 * math.pi * (frequency[:, None] * time % window) / window
    return (hann * torch.cos(phase)).float(), (-hann * torch.sin(phase)).float()


def mel_bands(window: int, rate: float, num_bands: int) -> Tensor:
    """Weights of each frequency in each band: (bands, frequencies), triangles that sum to 1.

    Args:
        window: samples of a window.
        rate: samples a second.
        num_bands: bands, at most; fewer where one would lie between two frequencies.
    """
    frequencies = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    for count in range(num_bands, 1, -1):
        edges = _hz(torch.linspace(_mel(min(LOWEST_HZ, rate / 8)), _mel(rate / 2), count + 2))
        rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
        weights = torch.minimum(rising, falling).clamp_(min=0)
        if (weights.sum(1) > 0).all():
            return (weights / weights.sum(1, keepdim=True)).float()
    return torch.full((1, len(frequencies)), 1 / len(frequencies))


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def _hz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel.double() / 2595) - 1)


def _kept(x: Tensor, axis: int, largest: float) -> Tensor:
    """0 for a random run along an axis of each sample, 1 elsewhere."""
    size = x.shape[axis]
    shape = (len(x), 1, 1, 1)
    run = torch.rand(shape, device=x.device) * largest * size
    start = torch.rand(shape, device=x.device) * (size - run)
    position = torch.arange(size, device=x.device).reshape(
        [-1 if a == axis else 1 for a in range(4)]
    )
    return ((position < start) | (position >= start + run)).to(x.dtype)


def _full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Powers differ by more than float16 or bfloat16 hold, so that they stay float32 under
    autocast.
    """
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()
