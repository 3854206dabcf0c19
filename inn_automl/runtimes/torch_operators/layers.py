"""Convolutions, linear layers, pooling, normalization, softmax, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inn_automl.runtimes.torch_operators.registry import (
    Attributes,
    Compute,
    Constants,
    Maker,
    NotCoveredError,
    ints,
    makes,
    torch_pads,
)


def _begin_and_end(attributes: Attributes, rank: int) -> tuple[list[int], list[int]]:
    """Padding before and after, by dimension."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotCoveredError(f"auto_pad={attributes['auto_pad']}")
    pads = list(attributes.get("pads", [0] * 2 * rank))
    return pads[:rank], pads[rank:]


def _rank(attributes: Attributes, constants: Constants) -> int:
    """Spatial dimensions of a convolution."""
    if "kernel_shape" in attributes:
        return len(attributes["kernel_shape"])
    if constants[1] is None:
        raise NotCoveredError("a kernel that the graph computes")
    return constants[1].ndim - 2


@makes("Conv")
def _conv(attributes: Attributes, constants: Constants) -> Compute:
    rank = _rank(attributes, constants)
    begin, end = _begin_and_end(attributes, rank)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    options = {
        "stride": tuple(attributes.get("strides", [1] * rank)),
        "dilation": tuple(attributes.get("dilations", [1] * rank)),
        "groups": attributes.get("group", 1),
    }
    if begin == end:
        return lambda x, w, b=None: convolve(x, w, b, padding=tuple(begin), **options)
    pads = torch_pads(begin, end)
    return lambda x, w, b=None: convolve(F.pad(x, pads), w, b, **options)


@makes("ConvTranspose")
def _conv_transpose(attributes: Attributes, constants: Constants) -> Compute:
    rank = _rank(attributes, constants)
    begin, end = _begin_and_end(attributes, rank)
    if begin != end or "output_shape" in attributes:
        raise NotCoveredError("unequal pads or an output_shape")
    convolve = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
    options = {
        "stride": tuple(attributes.get("strides", [1] * rank)),
        "padding": tuple(begin),
        "output_padding": tuple(attributes.get("output_padding", [0] * rank)),
        "groups": attributes.get("group", 1),
        "dilation": tuple(attributes.get("dilations", [1] * rank)),
    }
    return lambda x, w, b=None: convolve(x, w, b, **options)


@makes("Gemm")
def _gemm(attributes: Attributes, constants: Constants) -> Compute:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    flip_a, flip_b = attributes.get("transA", 0), attributes.get("transB", 0)
    if alpha == beta == 1.0 and not flip_a and flip_b:
        return F.linear

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = alpha * ((a.T if flip_a else a) @ (b.T if flip_b else b))
        return product if c is None else product + beta * c

    return compute


def _pool_options(attributes: Attributes) -> tuple[tuple[int, ...], dict[str, Any]]:
    kernel = tuple(attributes["kernel_shape"])
    begin, end = _begin_and_end(attributes, len(kernel))
    if begin != end:
        raise NotCoveredError("unequal pads")
    options = {
        "stride": tuple(attributes.get("strides", [1] * len(kernel))),
        "padding": tuple(begin),
        "ceil_mode": bool(attributes.get("ceil_mode", 0)),
    }
    return kernel, options


@makes("MaxPool")
def _max_pool(attributes: Attributes, constants: Constants) -> Compute:
    kernel, options = _pool_options(attributes)
    dilation = tuple(attributes.get("dilations", [1] * len(kernel)))
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
    return lambda x: pool(x, kernel, dilation=dilation, **options)


@makes("AveragePool")
def _average_pool(attributes: Attributes, constants: Constants) -> Compute:
    kernel, options = _pool_options(attributes)
    if set(attributes.get("dilations", [1])) != {1}:
        raise NotCoveredError("dilations")
    options["count_include_pad"] = bool(attributes.get("count_include_pad", 0))
    pool: Compute = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    return lambda x: pool(x, kernel, **options)


@makes("BatchNormalization")
def _batch_normalization(attributes: Attributes, constants: Constants) -> Compute:
    epsilon = attributes.get("epsilon", 1e-5)
    return lambda x, scale, shift, mean, var: F.batch_norm(x, mean, var, scale, shift, eps=epsilon)


@makes("LayerNormalization")
def _layer_normalization(attributes: Attributes, constants: Constants) -> Compute:
    axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
    return lambda x, scale, shift=None: F.layer_norm(x, x.shape[axis:], scale, shift, epsilon)


@makes("Softmax")
def _softmax(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", -1)
    return lambda x: x.softmax(axis)


@makes("LogSoftmax")
def _log_softmax(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", -1)
    return lambda x: x.log_softmax(axis)


def _reduction(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Maker:
    def maker(attributes: Attributes, constants: Constants) -> Compute:
        axes = attributes.get("axes") or ints(constants, 1, "axes")
        keeps = bool(attributes.get("keepdims", 1))
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        return lambda x, *_: reduce(x, tuple(axes) if axes else tuple(range(x.ndim)), keeps)

    return maker


makes("ReduceMean")(_reduction(lambda x, axes, keeps: x.mean(axes, keepdim=keeps)))
makes("ReduceSum")(_reduction(lambda x, axes, keeps: x.sum(axes, keepdim=keeps)))
makes("ReduceMax")(_reduction(lambda x, axes, keeps: x.amax(axes, keepdim=keeps)))
makes("ReduceMin")(_reduction(lambda x, axes, keeps: x.amin(axes, keepdim=keeps)))
makes("ReduceL2")(
    _reduction(lambda x, axes, keeps: torch.linalg.vector_norm(x, dim=axes, keepdim=keeps))
)
