"""Predicts what a file shows: python predict.py FILE

Needs onnxruntime and numpy; Pillow for images; soundfile and soxr for recordings.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FOLDER = Path(__file__).resolve().parent


def read_image(path: str, wanted: dict[str, Any]) -> np.ndarray:
    """An upright image (height, width, channels)."""
    from PIL import Image, ImageOps

    image = Image.open(path)
    upright = image if image.format == "PNG" else ImageOps.exif_transpose(image)  # as in training
    if upright.mode.startswith("I") or wanted["dtype"] == "float32":  # grey of 16 bits
        scale = 1 if wanted["dtype"] == "float32" else 1 / 257
        return (np.asarray(upright.convert("F")) * scale).astype(wanted["dtype"])[:, :, None]
    pixels = np.asarray(upright.convert("L" if wanted["channels"] == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def read_recording(path: str, wanted: dict[str, Any]) -> np.ndarray:
    """A recording (length, channels), float32 at the model's rate."""
    import soundfile
    import soxr

    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples, rate_hz, wanted["sample_rate_hz"]))


def main(path: str) -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    image, audio = config["preprocessing"]["image"], config["preprocessing"]["audio"]
    if path.endswith(".npy"):  # one sample, as it would be in the dataset
        name, given = "model.onnx", np.load(path)[None].astype(np.float32)
    elif image or audio:
        name = "model_any_size.onnx"
        given = read_image(path, image) if image else read_recording(path, audio)
    else:
        sys.exit("This model was trained on arrays: give one sample as a .npy file.")
    session = onnxruntime.InferenceSession(FOLDER / name, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: given})[0]
    classes = config["classes"]
    if classes and name == "model.onnx":  # logits to probabilities
        output = np.exp(output - output.max()) / np.exp(output - output.max()).sum()
    print(f"{classes[output.argmax()]} {output.max():.4f}" if classes else output.tolist())


if __name__ == "__main__":
    main(sys.argv[1])
