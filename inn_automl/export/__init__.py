"""A discretized module as an ONNX file, checked against torch, and as the bundle that a user
downloads.

What needs torch is loaded on first use, so that a bundle can be read where there is none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inn_automl.export.bundle import extract_bundle, read_bundle, write_bundle
    from inn_automl.export.elastic import ElasticConfig, read_elastic
    from inn_automl.export.elastic_writer import write_elastic
    from inn_automl.export.fp16 import convert_fp16
    from inn_automl.export.inn import InnConfig, load_inn, write_inn
    from inn_automl.export.onnx import export_onnx
    from inn_automl.export.quantization import quantize_onnx
    from inn_automl.export.records import BundleConfig
    from inn_automl.export.template import OnnxFile, OnnxTemplate
    from inn_automl.export.verification import TOLERANCE, verify_onnx

_HOME = {
    "BundleConfig": "records",
    "ElasticConfig": "elastic",
    "InnConfig": "inn",
    "OnnxFile": "template",
    "OnnxTemplate": "template",
    "TOLERANCE": "verification",
    "export_onnx": "onnx",
    "extract_bundle": "bundle",
    "convert_fp16": "fp16",
    "load_inn": "inn",
    "quantize_onnx": "quantization",
    "read_bundle": "bundle",
    "read_elastic": "elastic",
    "verify_onnx": "verification",
    "write_bundle": "bundle",
    "write_elastic": "elastic_writer",
    "write_inn": "inn",
}

__all__ = [
    "TOLERANCE",
    "BundleConfig",
    "ElasticConfig",
    "InnConfig",
    "OnnxFile",
    "OnnxTemplate",
    "convert_fp16",
    "export_onnx",
    "extract_bundle",
    "load_inn",
    "quantize_onnx",
    "read_bundle",
    "read_elastic",
    "verify_onnx",
    "write_bundle",
    "write_elastic",
    "write_inn",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
