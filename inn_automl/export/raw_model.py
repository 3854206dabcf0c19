"""The module that is exported: it takes the raw values of a dataset and gives its units back."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from inn_automl.core.errors import ExportError

INPUT, LOGITS, OUTPUT = "input", "logits", "output"
"""Names of the input and the output; the output is called logits where it is one number a class."""
Statistics = tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation, one number a channel."""


class Standardize(nn.Module):
    """Raw values to standardized ones, channel by channel: (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, input_shape: Sequence[int], mean: np.ndarray, std: np.ndarray) -> None:
        super().__init__()
        shape = (input_shape[0],) + (1,) * (len(input_shape) - 1)
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(-1)
            if tensor.numel() != input_shape[0]:
                raise ExportError(
                    f"{name} has {tensor.numel()} values for {input_shape[0]} channels: give one a "
                    f"channel."
                )
            self.register_buffer(name, tensor.reshape(shape).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        return (x - self.mean) / self.std


class Denormalize(nn.Module):
    """Standardized values to those of the dataset: x * std + mean, along the second dimension."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(
                name, torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(-1).clone()
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, ...) -> the same shape."""
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.std.reshape(shape) + self.mean.reshape(shape)


class RawInput(nn.Module):
    """A module behind the standardization of its input, and before the denormalization of its
    output, if it has one; as a copy, unless it is in eval mode and on the CPU already.

    Submodules keep their parameters apart from the names that the exporter gives to intermediate
    values: those have no dot in them.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        mean: np.ndarray,
        std: np.ndarray,
        target_statistics: Statistics | None = None,
    ) -> None:
        super().__init__()
        self.standardize = Standardize(input_shape, mean, std)
        self.restore = (
            nn.Identity() if target_statistics is None else Denormalize(target_statistics)
        )
        self.output_name = LOGITS if target_statistics is None else OUTPUT
        tensors = [*module.parameters(), *module.buffers()]
        is_ready = all(t.device.type == "cpu" for t in tensors) and not any(
            m.training for m in module.modules()
        )
        self.body = module if is_ready else copy.deepcopy(module).cpu()
        self.eval()

    def forward(self, input: Tensor) -> Tensor:
        """Raw float32 values (N, *input_shape) -> logits (N, num_classes), or other outputs in
        their own units.
        """
        output: Tensor = self.restore(self.body(self.standardize(input)))
        return output

    def relative(self, output: np.ndarray) -> np.ndarray:
        """Outputs as differences between them count: logits as they are, others as deviations from
        the targets' mean.

        The unit of a deviation is the targets' standard one, or a thousandth of their mean where
        that is larger: float32 holds no more digits.
        """
        if not isinstance(self.restore, Denormalize):
            return output
        shape = (-1, *[1] * (output.ndim - 2))
        mean, std = (
            values.numpy().reshape(shape) for values in (self.restore.mean, self.restore.std)
        )
        scaled: np.ndarray = (output - mean) / np.maximum(std, 1e-3 * np.abs(mean))
        return scaled

    def tensors(self) -> dict[str, np.ndarray]:
        """All parameters and buffers by their name in the exported graph; a shared one under each
        of its names.
        """
        named = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        return {name: tensor.detach().numpy() for name, tensor in named}
