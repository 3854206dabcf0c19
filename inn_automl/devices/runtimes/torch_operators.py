"""ONNX's operators in torch: those that exported models of this project consist of, and their near kin.

Each function here makes, from a node's attributes and its constant inputs, what computes the node. What a function does
not cover it refuses by name, for a model that is computed another way than the file says would be timed for nothing.

Source: https://onnx.ai/onnx/operators, opsets 13 to 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inn_automl.errors import MeasurementError

Compute = Callable[..., Any]
"""From a node's inputs (None where an optional one is left out) to its output, or to all of them as a sequence."""

Constants = Sequence[np.ndarray | None]
"""A node's inputs as far as the file holds their values."""

Attributes = Mapping[str, Any]

_MAKERS: dict[str, Callable[[Attributes, Constants], Compute]] = {}

_NO_END = 2**31 - 1
"""torch warns of the larger numbers that mean the ends of a dimension in exported slices."""

_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64}
"""By ONNX's number of the element type (`TensorProto.DataType`)."""


def make(operator: str, attributes: Attributes, constants: Constants) -> Compute:
    """What computes a node.

    Raises:
        MeasurementError: torch has no counterpart here; names the operator, or the attribute that is not covered.
    """
    if operator in _SAME:
        return _SAME[operator]
    if operator not in _MAKERS:
        raise MeasurementError(f"the torch runtimes have no operator {operator!r}: use an ONNX Runtime one.")
    try:
        return _MAKERS[operator](attributes, constants)
    except _NotCovered as fault:
        raise MeasurementError(
            f"the torch runtimes do not cover {operator} with {fault}: use an ONNX Runtime one."
        ) from None


class _NotCovered(Exception):
    """Says what of an operator is not."""


_Maker = Callable[[Attributes, Constants], Compute]


def _makes(*operators: str) -> Callable[[_Maker], _Maker]:
    def register(maker: _Maker) -> _Maker:
        _MAKERS.update(dict.fromkeys(operators, maker))
        return maker

    return register


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


_SAME: dict[str, Compute] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Cos": torch.cos,
    "Div": _divide,
    "Dropout": lambda x, *_: x,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "GlobalAveragePool": lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "SequenceAt": lambda sequence, position: sequence[int(position)],
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
"""Operators that need no attributes, or have a torch function of the same meaning for all of them."""


def _ints(constants: Constants, index: int, what: str) -> list[int] | None:
    """A constant input as integers; None where it is left out."""
    if index >= len(constants):
        return None
    values = constants[index]
    if values is None:
        raise _NotCovered(f"{what} that the graph computes")
    return [int(value) for value in values.reshape(-1)]


def _begin_and_end(attributes: Attributes, rank: int) -> tuple[list[int], list[int]]:
    """Padding before and after, by dimension."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise _NotCovered(f"auto_pad={attributes['auto_pad']}")
    pads = list(attributes.get("pads", [0] * 2 * rank))
    return pads[:rank], pads[rank:]


def _torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """As `torch.nn.functional.pad` wants them: the last dimension first."""
    return [size for pair in zip(reversed(begin), reversed(end), strict=True) for size in pair]


def _rank(attributes: Attributes, constants: Constants) -> int:
    """Spatial dimensions of a convolution."""
    if "kernel_shape" in attributes:
        return len(attributes["kernel_shape"])
    if constants[1] is None:
        raise _NotCovered("a kernel that the graph computes")
    return constants[1].ndim - 2


@_makes("Conv")
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
    pads = _torch_pads(begin, end)
    return lambda x, w, b=None: convolve(F.pad(x, pads), w, b, **options)


@_makes("ConvTranspose")
def _conv_transpose(attributes: Attributes, constants: Constants) -> Compute:
    rank = _rank(attributes, constants)
    begin, end = _begin_and_end(attributes, rank)
    if begin != end or "output_shape" in attributes:
        raise _NotCovered("unequal pads or an output_shape")
    convolve = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
    options = {
        "stride": tuple(attributes.get("strides", [1] * rank)),
        "padding": tuple(begin),
        "output_padding": tuple(attributes.get("output_padding", [0] * rank)),
        "groups": attributes.get("group", 1),
        "dilation": tuple(attributes.get("dilations", [1] * rank)),
    }
    return lambda x, w, b=None: convolve(x, w, b, **options)


@_makes("Gemm")
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
        raise _NotCovered("unequal pads")
    options = {
        "stride": tuple(attributes.get("strides", [1] * len(kernel))),
        "padding": tuple(begin),
        "ceil_mode": bool(attributes.get("ceil_mode", 0)),
    }
    return kernel, options


@_makes("MaxPool")
def _max_pool(attributes: Attributes, constants: Constants) -> Compute:
    kernel, options = _pool_options(attributes)
    dilation = tuple(attributes.get("dilations", [1] * len(kernel)))
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
    return lambda x: pool(x, kernel, dilation=dilation, **options)


@_makes("AveragePool")
def _average_pool(attributes: Attributes, constants: Constants) -> Compute:
    kernel, options = _pool_options(attributes)
    if set(attributes.get("dilations", [1])) != {1}:
        raise _NotCovered("dilations")
    options["count_include_pad"] = bool(attributes.get("count_include_pad", 0))
    pool: Compute = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    return lambda x: pool(x, kernel, **options)


@_makes("BatchNormalization")
def _batch_normalization(attributes: Attributes, constants: Constants) -> Compute:
    epsilon = attributes.get("epsilon", 1e-5)
    return lambda x, scale, shift, mean, var: F.batch_norm(x, mean, var, scale, shift, eps=epsilon)


@_makes("LayerNormalization")
def _layer_normalization(attributes: Attributes, constants: Constants) -> Compute:
    axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
    return lambda x, scale, shift=None: F.layer_norm(x, x.shape[axis:], scale, shift, epsilon)


@_makes("Gelu")
def _gelu(attributes: Attributes, constants: Constants) -> Compute:
    approximate = attributes.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@_makes("HardSigmoid")
def _hard_sigmoid(attributes: Attributes, constants: Constants) -> Compute:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid
    return lambda x: (alpha * x + beta).clamp(0, 1)


@_makes("LeakyRelu")
def _leaky_relu(attributes: Attributes, constants: Constants) -> Compute:
    alpha = attributes.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@_makes("Elu")
def _elu(attributes: Attributes, constants: Constants) -> Compute:
    alpha = attributes.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@_makes("Clip")
def _clip(attributes: Attributes, constants: Constants) -> Compute:
    bounds = [None if value is None else value.item() for value in constants[1:]]
    if len(constants) > 1 and all(bound is not None for bound in bounds):
        low, high = [*bounds, None][:2]
        return lambda x, *_: x.clamp(low, high)
    return lambda x, low=None, high=None: x if low is high is None else x.clamp(low, high)


@_makes("Softmax")
def _softmax(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", -1)
    return lambda x: x.softmax(axis)


@_makes("LogSoftmax")
def _log_softmax(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", -1)
    return lambda x: x.log_softmax(axis)


def _reduction(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> _Maker:
    def maker(attributes: Attributes, constants: Constants) -> Compute:
        axes = attributes.get("axes") or _ints(constants, 1, "axes")
        keeps = bool(attributes.get("keepdims", 1))
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        return lambda x, *_: reduce(x, tuple(axes) if axes else tuple(range(x.ndim)), keeps)

    return maker


_makes("ReduceMean")(_reduction(lambda x, axes, keeps: x.mean(axes, keepdim=keeps)))
_makes("ReduceSum")(_reduction(lambda x, axes, keeps: x.sum(axes, keepdim=keeps)))
_makes("ReduceMax")(_reduction(lambda x, axes, keeps: x.amax(axes, keepdim=keeps)))
_makes("ReduceMin")(_reduction(lambda x, axes, keeps: x.amin(axes, keepdim=keeps)))
_makes("ReduceL2")(_reduction(lambda x, axes, keeps: torch.linalg.vector_norm(x, dim=axes, keepdim=keeps)))


@_makes("Reshape")
def _reshape(attributes: Attributes, constants: Constants) -> Compute:
    keeps_zero = attributes.get("allowzero", 0)

    def compute(x: Tensor, target: Tensor) -> Tensor:
        return x.reshape([x.shape[i] if n == 0 and not keeps_zero else n for i, n in enumerate(target.tolist())])

    if constants[1] is None:
        return compute
    shape = [int(size) for size in constants[1]]
    if 0 not in shape or keeps_zero:
        return lambda x, _: x.reshape(shape)
    return lambda x, _: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


@_makes("Flatten")
def _flatten(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", 1)
    return lambda x: x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@_makes("Transpose")
def _transpose(attributes: Attributes, constants: Constants) -> Compute:
    order = attributes.get("perm")
    return lambda x: x.permute(tuple(order) if order else tuple(reversed(range(x.ndim))))


@_makes("Concat")
def _concat(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes["axis"]
    return lambda *parts: torch.cat(parts, axis)


@_makes("Split")
def _split(attributes: Attributes, constants: Constants) -> Compute:
    axis, sizes, num = attributes.get("axis", 0), _ints(constants, 1, "sizes"), attributes.get("num_outputs")
    if sizes:
        return lambda x, *_: x.split(sizes, axis)
    if num is None:
        raise _NotCovered("neither sizes nor num_outputs")
    return lambda x, *_: x.split(-(-x.shape[axis] // num), axis)


@_makes("SplitToSequence")
def _split_to_sequence(attributes: Attributes, constants: Constants) -> Compute:
    axis, keeps = attributes.get("axis", 0), attributes.get("keepdims", 1)
    sizes = _ints(constants, 1, "sizes")
    if sizes is None:
        return lambda x: x.split(1, axis) if keeps else x.unbind(axis)
    scalar = constants[1] is not None and constants[1].ndim == 0
    return lambda x, _: x.split(sizes[0] if scalar else sizes, axis)


@_makes("Slice")
def _slice(attributes: Attributes, constants: Constants) -> Compute:
    starts, ends = _ints(constants, 1, "starts"), _ints(constants, 2, "ends")
    if starts is None or ends is None:
        raise _NotCovered("bounds as attributes (opset 9)")
    axes, steps = _ints(constants, 3, "axes"), _ints(constants, 4, "steps")
    if steps and min(steps) < 1:
        raise _NotCovered("negative steps")
    starts, ends = ([max(-_NO_END, min(bound, _NO_END)) for bound in bounds] for bounds in (starts, ends))
    pieces = [slice(*bounds) for bounds in zip(starts, ends, steps or [1] * len(starts), strict=True)]

    def compute(x: Tensor, *_: Tensor) -> Tensor:
        chosen = [slice(None)] * x.ndim
        for axis, piece in zip(axes or range(len(pieces)), pieces, strict=True):
            chosen[axis] = piece
        return x[tuple(chosen)]

    return compute


@_makes("Gather")
def _gather(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", 0)
    index = constants[1]
    if index is not None and index.ndim == 0:
        return lambda x, _: x.select(axis, int(index))

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        indices = torch.where(indices < 0, indices + x.shape[axis], indices)
        before, after = x.shape[:axis], x.shape[axis + 1 :] if axis != -1 else ()
        return x.index_select(axis, indices.reshape(-1)).reshape(*before, *indices.shape, *after)

    return compute


@_makes("Squeeze")
def _squeeze(attributes: Attributes, constants: Constants) -> Compute:
    axes = _ints(constants, 1, "axes")
    return lambda x, *_: x.squeeze() if axes is None else x.squeeze(tuple(axes))


@_makes("Unsqueeze")
def _unsqueeze(attributes: Attributes, constants: Constants) -> Compute:
    axes = _ints(constants, 1, "axes") or []

    def compute(x: Tensor, _: Tensor) -> Tensor:
        for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return compute


@_makes("Expand")
def _expand(attributes: Attributes, constants: Constants) -> Compute:
    return lambda x, target: x.expand(torch.broadcast_shapes(x.shape, tuple(target.tolist())))


@_makes("Shape")
def _shape(attributes: Attributes, constants: Constants) -> Compute:
    start, end = attributes.get("start", 0), attributes.get("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)  # on the CPU: sizes are read there


@_makes("ConstantOfShape")
def _constant_of_shape(attributes: Attributes, constants: Constants) -> Compute:
    value = attributes.get("value", np.zeros(1, np.float32))
    filled = torch.from_numpy(value.copy())
    return lambda target: torch.full(target.tolist(), filled.item(), dtype=filled.dtype)


@_makes("Pad")
def _pad(attributes: Attributes, constants: Constants) -> Compute:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(attributes.get("mode", "constant"))
    pads = _ints(constants, 1, "pads")
    if mode is None or pads is None or len(constants) > 3:
        raise _NotCovered("wrapping, axes, or pads as an attribute")
    value = constants[2].item() if len(constants) > 2 and constants[2] is not None else 0.0
    sizes = _torch_pads(pads[: len(pads) // 2], pads[len(pads) // 2 :])
    if mode == "constant":
        return lambda x, *_: F.pad(x, sizes, value=value)
    while sizes[-2:] == [0, 0]:  # torch reflects the last dimensions only
        sizes = sizes[:-2]
    return lambda x, *_: F.pad(x, sizes, mode)


@_makes("Cast")
def _cast(attributes: Attributes, constants: Constants) -> Compute:
    dtype = _DTYPES.get(attributes["to"])
    if dtype is None:
        raise _NotCovered(f"element type {attributes['to']}")
    return lambda x: x.to(dtype)


@_makes("CastLike")
def _cast_like(attributes: Attributes, constants: Constants) -> Compute:
    return lambda x, like: x.to(like.dtype)


@_makes("DepthToSpace")
def _depth_to_space(attributes: Attributes, constants: Constants) -> Compute:
    size = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def compute(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // size**2, h * size, w * size)

    return compute


@_makes("Resize")
def _resize(attributes: Attributes, constants: Constants) -> Compute:
    """As `torch.nn.functional.interpolate` is exported, no other way."""
    kind = attributes.get("mode", "nearest")
    places = attributes.get("coordinate_transformation_mode", "half_pixel")
    scales, sizes = [constants[i] if len(constants) > i else None for i in (2, 3)]
    if (scales is None or not scales.size) == (sizes is None or not sizes.size):
        raise _NotCovered("a size that the graph computes")
    if attributes.get("axes") or attributes.get("antialias", 0) or attributes.get("exclude_outside", 0):
        raise _NotCovered("axes, antialiasing or exclude_outside")
    if kind == "nearest":
        if (places, attributes.get("nearest_mode", "round_prefer_floor")) != ("asymmetric", "floor"):
            raise _NotCovered(f"nearest values by {places}")
        options: dict[str, Any] = {"mode": "nearest"}
    elif places in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if kind == "cubic" and not math.isclose(attributes.get("cubic_coeff_a", -0.75), -0.75):
            raise _NotCovered("another cubic kernel")
        options = {"mode": kind, "align_corners": places == "align_corners"}
    else:
        raise _NotCovered(f"positions by {places}")
    target = (scales if sizes is None or not sizes.size else sizes)[2:].tolist()  # type: ignore[index]
    names = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}[len(target)], "cubic": "bicubic"}
    options["mode"] = names.get(options["mode"], options["mode"])
    if sizes is None or not sizes.size:
        return lambda x, *_: F.interpolate(x, scale_factor=target, **options)
    return lambda x, *_: F.interpolate(x, size=target, **options)
