"""Attention as ONNX: two matrix products and a softmax.

The exporter's own translation has the graph compute, at every run, the sizes that it transposes
and scales by; where nothing is masked they are known. What is masked, causal or shares heads is
left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention
from onnxscript.onnx_opset import opset18 as op


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """(N, heads, tokens, size) each; arguments as those of torch's operation of that name."""
    size = query.shape[-1]
    if (
        attn_mask is not None
        or dropout_p
        or is_causal
        or enable_gqa
        or len(key.shape) != 4
        or not isinstance(size, int)
    ):
        return aten_scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    factor = op.Constant(value_float=float(size) ** -0.5 if scale is None else scale)
    products = op.MatMul(op.Mul(query, factor), op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(products, axis=-1), value)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: scaled_dot_product_attention
}
"""Operations that are translated here and not by the exporter."""
