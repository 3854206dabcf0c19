"""Comparison of `model_any_size.onnx` with Pillow, or NumPy, before `model.onnx`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from inn_automl.core.errors import VerificationError
from inn_automl.export.preparation import geometry, softmax, windows_of

if TYPE_CHECKING:
    from inn_automl.export.records import AudioInput, ImageInput, Preprocessing

FRONT_TOLERANCE = 0.02
"""Largest accepted difference of a probability, or of another output as a fraction of the largest.

Both resize with Pillow's weights and round to bytes after each direction; ties of the rounding fall
differently in one pixel of some thousands, by one grey level. An EfficientNet-lite0 with ImageNet
weights differs by 3e-4 on photographs.
"""
INT8_FRONT_TOLERANCE = 0.15
"""The same of int8 models, in which such a pixel moves activations by one of their 256 steps: the
same network in int8 differs by 0.03."""
_SCALES = ((1.0, 1.0), (1.7, 2.3), (2.1, 1.4), (0.7, 0.6))
"""Heights and widths of the images that are tried, as multiples of the network's."""
_LENGTHS = (0.6, 1.0, 2.7)
"""Lengths of the recordings, in windows."""


def verify_front(
    any_size: bytes,
    model: bytes,
    samples: np.ndarray,
    preprocessing: Preprocessing,
    *,
    tolerance: float = FRONT_TOLERANCE,
) -> float:
    """Runs the front on samples that are brought to other sizes, and what it stands for, too.

    Args:
        any_size: `model_any_size.onnx`.
        model: `model.onnx`.
        samples: (N, *input_shape), raw values of the dataset, N at least 1.
        preprocessing: as described in the bundle.
        tolerance: largest accepted difference.

    Returns:
        The largest difference of a probability, or of another output as a fraction of the largest.

    Raises:
        VerificationError: they differ by more than `tolerance`, or one cannot be run.
    """
    if preprocessing.image is not None:
        pairs = _images(samples, preprocessing.image)
    else:
        assert preprocessing.audio is not None
        pairs = _recordings(samples, preprocessing.audio)
    try:
        front, network = _session(any_size, model), _session(model)
        difference = scale = 0.0
        for raw, batch in pairs:
            (found,) = front.run(None, {front.get_inputs()[0].name: raw})
            (output,) = network.run(None, {network.get_inputs()[0].name: batch})
            is_classifier = front.get_outputs()[0].name != network.get_outputs()[0].name
            wanted = (softmax(output) if is_classifier else output).mean(axis=0, keepdims=True)
            difference = float(np.maximum(difference, np.abs(found - wanted).max()))
            scale = max(scale, 1.0 if is_classifier else float(np.abs(wanted).max()))
    except Exception as error:  # ONNX Runtime's errors share no public base class
        reason = " ".join(str(error).split())
        raise VerificationError(
            f"the model for any size cannot be run in ONNX Runtime ({reason:.300}): export it "
            f"again."
        ) from error
    relative = difference / scale if difference else 0.0
    if not relative <= tolerance:
        raise VerificationError(
            f"the model for any size differs by {relative:.3g} from the same network behind "
            f"Pillow or NumPy, more than {tolerance:g}: use another version of ONNX Runtime."
        )
    return relative


def _images(samples: np.ndarray, image: ImageInput) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (height, width, channels), and the batch of one that each should become."""
    from PIL import Image

    how = geometry(image)
    resampling = Image.Resampling[image.interpolation.upper()]

    def resized(x: np.ndarray, size: Sequence[int]) -> np.ndarray:
        height, width = size
        planes = [Image.fromarray(plane).resize((width, height), resampling) for plane in x]
        return np.stack([np.asarray(plane) for plane in planes])

    for index, scales in enumerate(_SCALES):
        sample = samples[index % len(samples)].astype(image.dtype)
        sides = zip(sample.shape[1:], scales, strict=True)
        x = resized(sample, [max(1, round(side * scale)) for side, scale in sides])
        wanted = how.evaluated(how.framed(resized(x, how.scaled_size((x.shape[1], x.shape[2])))))
        yield (
            np.ascontiguousarray(x.transpose(1, 2, 0)),
            np.ascontiguousarray(wanted[None], np.float32),
        )


def _recordings(samples: np.ndarray, audio: AudioInput) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Recordings (length, channels), and the batch of windows that each should become."""
    row = np.concatenate(list(samples[np.arange(4) % len(samples)]), axis=1).astype(np.float32)
    for length in _LENGTHS:
        recording = row[:, : round(length * audio.window_samples)].T
        yield np.ascontiguousarray(recording), windows_of(recording, audio)


def _session(model: bytes, beside: bytes | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings are about speed
    providers = ["CPUExecutionProvider"]
    if beside is None:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    options.add_external_initializers_from_files_in_memory(["model.onnx"], [beside], [len(beside)])
    return onnxruntime.InferenceSession(model, options, providers=providers)
