"""The peer of a job on spoken words: a small convolutional network over log-mel spectrograms,
trained as people do it by hand.

Four plain convolutions, AdamW, a one-cycle schedule, shifts and noise. Spectrograms are torch's own
`stft`; nothing of inn_automl is used.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_SIZE, LEARNING_RATE = 64, 4e-3
WINDOW_S, STEP_S, NUM_BANDS = 0.025, 0.010, 40


@dataclass(frozen=True)
class PlainResult:
    """What the peer reached."""

    accuracy: float
    num_samples: int
    params: int
    epochs: int
    seconds: float


def train_plain(folder: Path, *, epochs: int, seed: int) -> PlainResult:
    """Trains on `train/WORD/*.wav`, tests on `test/WORD/*.wav`."""
    torch.manual_seed(seed)
    (x, y, rate), (x_test, y_test, _) = (_read(folder / split) for split in ("train", "test"))
    num_classes = int(y.max()) + 1
    network = _network(num_classes)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    num_steps = epochs * (len(x) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, num_steps)
    started_at = time.monotonic()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(BATCH_SIZE):
            if len(chosen) < BATCH_SIZE:
                continue
            spectrograms = _log_mel(_varied(x[chosen], rate), rate)
            loss = F.cross_entropy(network(spectrograms), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds = time.monotonic() - started_at
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(_log_mel(part, rate)) for part in x_test.split(BATCH_SIZE)])
    return PlainResult(
        float((logits.argmax(1) == y_test).float().mean()),
        len(y_test),
        sum(parameter.numel() for parameter in network.parameters()),
        epochs,
        seconds,
    )


def _network(num_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = [1, 16, 24, 32, 32]
    for c_in, c_out in itertools.pairwise(channels):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)
    )


def _read(folder: Path) -> tuple[Tensor, Tensor, int]:
    """Samples (N, L), labels (N,), and the rate in Hz."""
    classes = sorted(path.name for path in folder.iterdir())
    sounds, labels, rate = [], [], 0
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*.wav")):
            sound, rate = soundfile.read(path, dtype="float32")
            sounds.append(sound)
            labels.append(label)
    return torch.from_numpy(np.stack(sounds)), torch.tensor(labels), rate


def _varied(x: Tensor, rate: int) -> Tensor:
    """Shifted by up to 100 ms, with white noise 10 to 40 dB below."""
    offsets = torch.randint(-rate // 10, rate // 10 + 1, (len(x),)).tolist()
    moved = torch.stack([sound.roll(offset) for sound, offset in zip(x, offsets, strict=True)])
    loudness = moved.square().mean(1, keepdim=True).sqrt()
    return moved + torch.randn_like(moved) * loudness * 10 ** -(0.5 + 1.5 * torch.rand(len(x), 1))


def _log_mel(x: Tensor, rate: int) -> Tensor:
    """(N, L) -> (N, 1, bands, windows), zero mean and unit variance each."""
    window = round(WINDOW_S * rate)
    spectrum = torch.stft(
        x,
        window,
        round(STEP_S * rate),
        window=torch.hann_window(window),
        center=False,
        return_complex=True,
    )
    logarithms = torch.log(_bands(window, rate) @ spectrum.abs().square() + 1e-6)
    mean, std = logarithms.mean((1, 2), keepdim=True), logarithms.std((1, 2), keepdim=True)
    return ((logarithms - mean) / std)[:, None]


def _bands(window: int, rate: int) -> Tensor:
    mel = torch.linspace(0, float(2595 * np.log10(1 + rate / 2 / 700)), NUM_BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequencies = torch.arange(window // 2 + 1) * rate / window
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)
