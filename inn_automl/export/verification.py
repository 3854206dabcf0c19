"""Comparison of an ONNX file's outputs with those of the torch module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from inn_automl.core.errors import StorageError, VerificationError
from inn_automl.export.fp16 import float32_counterpart
from inn_automl.export.raw_model import INPUT, RawInput, Statistics

TOLERANCE = 1e-4
"""Largest accepted |ONNX - torch|, as a fraction of the largest |output|.

Outputs in the units of targets count by their deviation from the targets' mean (see
`RawInput.relative`).

Both compute in float32 (unit roundoff 6e-8) and differ in the order of their sums and in batch
norm folded beforehand. The families and a ResNet-18 stay below 3e-7; logits that are small
differences of large terms may lose two digits more. A single tensor that is off by a percent, or a
mean by one gray level, shows. What passes can change a prediction only where two logits are closer
than 2e-4 of the largest one.
"""

FP16_TOLERANCE = 5e-2
"""Largest accepted difference of a float16 file, whose unit roundoff is 5e-4. The
families stay below 2e-3, and a value that overflows shows."""

_BATCH_SIZES = (1, 3)  # the usual one, and one that the file was not translated with


def verify_onnx(
    path: str | Path,
    module: nn.Module,
    samples: np.ndarray,
    *,
    mean: np.ndarray,
    std: np.ndarray,
    target_statistics: Statistics | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Runs an ONNX file in ONNX Runtime and a module in torch on the same raw samples, in batches
    of 1 and of 3.

    Args:
        path: a file as `export_onnx` or `convert_fp16` writes it.
        module: takes standardized float32 (N, *input_shape); run in eval mode on the CPU, as a
            copy.
        samples: (N, *input_shape), N at least 1, raw values of the dataset; all are used, each in
            both batch sizes.
        mean, std, target_statistics: as exported.
        tolerance: largest accepted difference, relative to the largest absolute output.

    Returns:
        The largest absolute difference divided by the largest absolute output of torch.

    Raises:
        VerificationError: the file cannot be run, or differs by more than `tolerance`; the message
            has the numbers.
        StorageError: the file cannot be read.
    """
    path = Path(path)
    try:
        model = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be read ({error.strerror}): export the module first."
        ) from error
    raw = RawInput(module, samples.shape[1:], mean, std, target_statistics)
    return compare(model, raw, samples, tolerance=tolerance, name=str(path))


def compare(
    model: bytes, raw: RawInput, samples: np.ndarray, *, tolerance: float, name: str
) -> float:
    """Compares the bytes of an ONNX file, called `name` in messages, with a module.

    Arguments and errors are those of `verify_onnx`.
    """
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if not len(samples):
        raise VerificationError(f"there is no sample to verify {name!r} with: give at least one.")
    with torch.inference_mode():
        expected = raw(torch.from_numpy(samples)).numpy()
    if not np.isfinite(expected).all():
        raise VerificationError(
            f"the torch module of {name!r} gives outputs that are not finite: train it, or "
            f"re-estimate its statistics."
        )
    wanted, difference = raw.relative(expected), 0.0
    try:
        session = _session(float32_counterpart(model))
        for batch_size in _BATCH_SIZES:
            for start in range(0, len(samples), batch_size):
                rows = np.arange(start, start + batch_size) % len(samples)
                (output,) = session.run(None, {INPUT: samples[rows]})
                if output.shape != expected[rows].shape:
                    raise VerificationError(
                        f"{name!r} gives outputs of shape {output.shape} where torch gives "
                        f"{expected[rows].shape}: "
                        "export the module again."
                    )
                # np.maximum keeps a NaN, where max() may drop it.
                difference = float(
                    np.maximum(difference, np.abs(raw.relative(output) - wanted[rows]).max())
                )
    except VerificationError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no public base class
        reason = " ".join(str(error).split())
        raise VerificationError(
            f"{name!r} cannot be run in ONNX Runtime ({reason}): export it again."
        ) from error
    scale = float(np.abs(wanted).max())
    relative = difference / scale if difference else 0.0
    if not relative <= tolerance:
        raise VerificationError(
            f"{name!r} differs from torch by {difference:.3g} where the largest output is "
            f"{scale:.3g}, a fraction of "
            f"{relative:.3g} and more than {tolerance:.3g}: export the module again."
        )
    return relative


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings are about speed
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
