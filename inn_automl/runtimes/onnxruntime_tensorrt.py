"""ONNX Runtime with NVIDIA TensorRT: `TensorrtExecutionProvider` of the package onnxruntime-gpu."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from inn_automl.core.precision import METADATA_KEY
from inn_automl.runtimes.onnx_session import Provider
from inn_automl.runtimes.onnxruntime_cuda import CUDA, OnnxRuntimeCuda

ENGINES = Path("~/.cache/inn_automl/tensorrt")


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """TensorRT through ONNX Runtime. Operations without a TensorRT kernel run in CUDA.

    TensorRT chooses its kernels by timing them, which takes from seconds to minutes for a model.
    Its engines are cached, so that only the first process of a measurement waits for it, and all of
    them time the same engine.
    """

    name = "onnxruntime-tensorrt"

    def providers(self) -> list[Provider]:
        engines = ENGINES.expanduser() / onnxruntime.__version__
        engines.mkdir(parents=True, exist_ok=True)
        options = {
            "device_id": "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
        }
        return [("TensorrtExecutionProvider", options), CUDA]

    def providers_of(self, path: Path) -> list[Provider]:
        # TensorRT computes a file's float16 operations in float32, and may do the opposite, unless
        # it is set.
        (name, options), *others = self.providers()
        described = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        ).get_modelmeta()
        is_half = described.custom_metadata_map.get(METADATA_KEY) == "fp16"
        return [(name, {**options, "trt_fp16_enable": str(int(is_half))}), *others]


RUNTIME = OnnxRuntimeTensorRt
