"""Small models of files, whose outputs change with every pixel, and their bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from inn_automl.export.bundle import write_bundle
from inn_automl.export.front import any_size_model
from inn_automl.export.records import AudioInput, BundleConfig, ImageInput, Preprocessing

CLASSES = ("cat", "dog", "owl", "fox")


def image_input(**changes: Any) -> ImageInput:
    values: dict[str, Any] = {
        "channels": 3,
        "input_size": (40, 56),
        "stored_size": (46, 64),
        "resize": "crop",
        "crop_fraction": 0.875,
        **changes,
    }
    if values["resize"] != "crop":
        values |= {"stored_size": values["input_size"], "crop_fraction": 1.0}
    return ImageInput(**values)


AUDIO = AudioInput(sample_rate_hz=8000, channels=1, window_samples=400, hop_samples=200)


def preprocessing(
    image: ImageInput | None = None, audio: AudioInput | None = None
) -> Preprocessing:
    channels = image.channels if image else audio.channels if audio else 2
    mean, std = (0.0, 0.1) if audio else (120.0, 60.0)
    return Preprocessing(mean=(mean,) * channels, std=(std,) * channels, image=image, audio=audio)


def input_shape(described: Preprocessing) -> tuple[int, ...]:
    if described.image is not None:
        return (described.image.channels, *described.image.input_size)
    if described.audio is not None:
        return (described.audio.channels, described.audio.window_samples)
    return (2, 8, 8)


def network(described: Preprocessing, *, output: str = "logits", outputs: int = 4) -> bytes:
    """`model.onnx`: standardization, a linear layer with a smooth nonlinearity, another one."""
    shape = input_shape(described)
    rng = np.random.default_rng(0)
    num_values = int(np.prod(shape))
    broadcast = (-1,) + (1,) * (len(shape) - 1)
    tensors = {
        "mean": np.float32(described.mean).reshape(broadcast),
        "std": np.float32(described.std).reshape(broadcast),
        "first": rng.normal(0, num_values**-0.5, (num_values, 32)),
        "second": rng.normal(0, 1, (32, outputs)),
    }
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["standardized"]),
        helper.make_node("Flatten", ["standardized"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    found: bytes = model.SerializeToString(deterministic=True)
    return found


def write_file_bundle(folder: Path, described: Preprocessing, **changes: Any) -> Path:
    """A bundle of `network`, as jobs write it; the path of `bundle.zip` in `folder`."""
    is_regression = changes.get("task") == "regression"
    name, outputs = ("output", 2) if is_regression else ("logits", 4)
    model = network(described, output=name, outputs=outputs)
    (folder / "model.onnx").write_bytes(model)
    config = bundle_config(described, output={"name": name, "shape": (outputs,)}, **changes)
    write_bundle(
        folder / "bundle.zip",
        config,
        onnx=folder / "model.onnx",
        weights={"first": torch.zeros(3)},
        any_size=any_size_model(model, described, "model.onnx"),
    )
    return folder / "bundle.zip"


def bundle_config(described: Preprocessing, **changes: Any) -> BundleConfig:
    values = {
        "id": "a1b2",
        "family": "convnet",
        "build": {
            "input_shape": input_shape(described),
            "num_classes": 4,
            "width": 1.0,
            "depth": None,
        },
        "widths": {"conv": 6},
        "classes": () if changes.get("task") == "regression" else CLASSES,
        "input": {"name": "input", "shape": input_shape(described)},
        "output": {"name": "logits", "shape": (4,)},
        "preprocessing": described.model_dump(),
        "dataset": {"name": "animals", "fingerprint": "0" * 64},
        "metric": {
            "name": "accuracy",
            "unit": "",
            "validation": 0.9,
            "test": 0.88,
            "test_ci": (0.85, 0.91),
            "num_test_samples": 500,
        },
        "params": 123,
        "macs": 4567,
        "latency": {},
        "verification": {"max_difference": 1e-7, "tolerance": 1e-4, "num_samples": 4},
        **changes,
    }
    return BundleConfig.model_validate(values)
