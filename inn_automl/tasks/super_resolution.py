"""Super-resolution: absolute error, and the peak signal-to-noise ratio (PSNR) of each image.

L1 rather than squared error trains networks to a higher PSNR (Lim et al., "Enhanced Deep Residual
Networks for Single Image Super-Resolution", CVPR Workshops 2017, section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inn_automl.core.metric import PSNR
from inn_automl.core.sample_scores import SampleScores
from inn_automl.tasks.objective import (
    Learned,
    Objective,
    Score,
    channels,
    mean_interval,
)

if TYPE_CHECKING:
    from inn_automl.data import Dataset

LEAST_ERROR = 1e-10
"""Mean squared error, as a fraction of the squared peak, that every image is taken to have at
least: 100 dB.
"""
_BATCH = 64


class SuperResolution(Objective):
    """Outputs and targets are images (N, C, s H, s W), standardized by the channels' statistics of
    the inputs.

    PSNR is 10 log10(peak² / MSE) in dB, where MSE is the mean over all pixels and channels of an
    image, no border left out, and peak is 255 for bytes and the range of the training targets for
    other numbers. Outputs for bytes are clipped to 0..255 and not rounded. The metric value
    is the mean over all images.
    """

    metric = PSNR

    def __init__(self, dataset: Dataset) -> None:
        assert dataset.target_statistics is not None and dataset.peak is not None
        self._mean, self._std = dataset.target_statistics
        self._peak = dataset.peak
        self._is_bytes = dataset.y.dtype == np.uint8

    def targets(self, y: Tensor) -> Tensor:
        return (y.float() - channels(self._mean, y)) / channels(self._std, y)

    def raw(self, output: Tensor) -> Tensor:
        return output * channels(self._std, output) + channels(self._mean, output)

    def augment(
        self, x: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """One of the flips and rotations by right angles for the whole batch, the same for both
        images of a pair.
        """
        flips_rows, flips_columns, turns = torch.randint(2, (3,), generator=generator).tolist()
        axes = [2] * flips_rows + [3] * flips_columns
        is_turned = bool(turns) and x.shape[2] == x.shape[3]

        def vary(images: Tensor) -> Tensor:
            varied = images.flip(axes) if axes else images
            return varied.transpose(2, 3) if is_turned else varied

        return vary(x), vary(targets)

    def loss(self, output: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        return F.l1_loss(output, targets)

    def soft_targets(
        self,
        output: Tensor,
        targets: Tensor,
        *,
        label_fraction: float,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        return torch.lerp(output, targets, label_fraction)

    def soft_loss(self, output: Tensor, soft_targets: Tensor) -> Tensor:
        return F.l1_loss(output, soft_targets)

    def scores(self, output: Tensor, y: Tensor) -> Tensor:
        """(N, 1): PSNR of each image in dB."""
        shown = output.clamp(0, 255) if self._is_bytes else output
        error = ((shown.double() - y.double()) / self._peak).square().flatten(1).mean(1)
        return -10 * error.clamp(min=LEAST_ERROR).log10()[:, None]

    def score(self, scores: NDArray[np.float64]) -> Score:
        """The mean, with the interval of a mean."""
        each = scores[:, 0]
        return Score(
            float(each.mean()),
            mean_interval(each),
            len(each),
            loss=-float(each.mean()),
            samples=SampleScores(each.astype(np.float32), -each.astype(np.float32)),
        )

    def baseline(self, dataset: Dataset) -> float:
        """PSNR of bicubic upscaling."""
        return self.score(self._bicubic(dataset)).value

    def learned(self, score: Score, dataset: Dataset) -> Learned:
        """The gain over bicubic upscaling on the same images: images differ more than methods."""
        assert score.samples is not None
        bicubic = self._bicubic(dataset)[:, 0]
        baseline = float(bicubic.mean())
        low, high = mean_interval(score.samples.contributions.astype(np.float64) - bicubic)
        return Learned(score.value, (baseline + low, baseline + high), baseline, self.metric.name)

    def _bicubic(self, dataset: Dataset) -> NDArray[np.float64]:
        """`scores` of bicubic upscaling on the validation split."""
        assert dataset.scale is not None
        found = []
        for start in range(0, len(dataset.validation), _BATCH):
            rows = dataset.validation[start : start + _BATCH]
            small, large = (
                torch.as_tensor(dataset.x[rows]).float(),
                torch.as_tensor(dataset.y[rows]),
            )
            upscaled = F.interpolate(small, scale_factor=dataset.scale, mode="bicubic")
            found.append(self.scores(upscaled, large).numpy())
        return np.concatenate(found)
