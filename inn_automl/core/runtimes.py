"""Names of the runtimes, for those who check a budget without loading any."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RuntimeInfo:
    """Properties of a runtime that are known without loading it."""

    precisions: tuple[str, ...]
    """The precisions that it has kernels for: int8 where it was found to gain from it, fp16 on
    GPUs. (ONNX Runtime's CPU provider would compute an fp16 file in float32.)
    """
    install: str
    """The command that adds it to a machine."""


RUNTIMES = {
    "onnxruntime-cpu": RuntimeInfo(("fp32", "int8"), "pip install onnxruntime"),
    # Both packages own the module `onnxruntime`: side by side they overwrite each other's files.
    "onnxruntime-cuda": RuntimeInfo(
        ("fp32", "fp16"), "pip uninstall onnxruntime && pip install onnxruntime-gpu"
    ),
    "onnxruntime-tensorrt": RuntimeInfo(
        ("fp32", "fp16"),
        "pip uninstall onnxruntime && pip install onnxruntime-gpu tensorrt-cu12",
    ),
    "openvino": RuntimeInfo(("fp32",), "pip install openvino"),
    "torch-cpu": RuntimeInfo(("fp32",), "pip install torch onnx"),
    # On Linux, PyPI's torch is a build for CUDA.
    "torch-cuda": RuntimeInfo(("fp32",), "pip install torch onnx"),
}
"""All runtimes by name; the code of each is in the module of the same name in
`inn_automl.runtimes`, with underscores.
"""
