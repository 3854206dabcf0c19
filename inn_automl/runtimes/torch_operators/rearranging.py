"""Operators that change shapes, positions, types and sizes, and not values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inn_automl.runtimes.torch_operators.registry import (
    Attributes,
    Compute,
    Constants,
    NotCoveredError,
    ints,
    makes,
    torch_pads,
)

_NO_END = 2**31 - 1
"""torch warns of the larger numbers that mean the ends of a dimension in exported slices."""

_DTYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
}
"""Dtype by ONNX's number of the element type (`TensorProto.DataType`)."""


@makes("Reshape")
def _reshape(attributes: Attributes, constants: Constants) -> Compute:
    keeps_zero = attributes.get("allowzero", 0)

    def compute(x: Tensor, target: Tensor) -> Tensor:
        return x.reshape(
            [x.shape[i] if n == 0 and not keeps_zero else n for i, n in enumerate(target.tolist())]
        )

    if constants[1] is None:
        return compute
    shape = [int(size) for size in constants[1]]
    if 0 not in shape or keeps_zero:
        return lambda x, _: x.reshape(shape)
    return lambda x, _: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


@makes("Flatten")
def _flatten(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes.get("axis", 1)
    return lambda x: x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@makes("Transpose")
def _transpose(attributes: Attributes, constants: Constants) -> Compute:
    order = attributes.get("perm")
    return lambda x: x.permute(tuple(order) if order else tuple(reversed(range(x.ndim))))


@makes("Concat")
def _concat(attributes: Attributes, constants: Constants) -> Compute:
    axis = attributes["axis"]
    return lambda *parts: torch.cat(parts, axis)


@makes("Split")
def _split(attributes: Attributes, constants: Constants) -> Compute:
    axis, sizes, num = (
        attributes.get("axis", 0),
        ints(constants, 1, "sizes"),
        attributes.get("num_outputs"),
    )
    if sizes:
        return lambda x, *_: x.split(sizes, axis)
    if num is None:
        raise NotCoveredError("neither sizes nor num_outputs")
    return lambda x, *_: x.split(-(-x.shape[axis] // num), axis)


@makes("SplitToSequence")
def _split_to_sequence(attributes: Attributes, constants: Constants) -> Compute:
    axis, keeps = attributes.get("axis", 0), attributes.get("keepdims", 1)
    sizes = ints(constants, 1, "sizes")
    if sizes is None:
        return lambda x: x.split(1, axis) if keeps else x.unbind(axis)
    scalar = constants[1] is not None and constants[1].ndim == 0
    return lambda x, _: x.split(sizes[0] if scalar else sizes, axis)


@makes("Slice")
def _slice(attributes: Attributes, constants: Constants) -> Compute:
    starts, ends = ints(constants, 1, "starts"), ints(constants, 2, "ends")
    if starts is None or ends is None:
        raise NotCoveredError("bounds as attributes (opset 9)")
    axes, steps = ints(constants, 3, "axes"), ints(constants, 4, "steps")
    if steps and min(steps) < 1:
        raise NotCoveredError("negative steps")
    starts, ends = (
        [max(-_NO_END, min(bound, _NO_END)) for bound in bounds] for bounds in (starts, ends)
    )
    pieces = [
        slice(*bounds) for bounds in zip(starts, ends, steps or [1] * len(starts), strict=True)
    ]

    def compute(x: Tensor, *_: Tensor) -> Tensor:
        chosen = [slice(None)] * x.ndim
        for axis, piece in zip(axes or range(len(pieces)), pieces, strict=True):
            chosen[axis] = piece
        return x[tuple(chosen)]

    return compute


@makes("Gather")
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


@makes("Squeeze")
def _squeeze(attributes: Attributes, constants: Constants) -> Compute:
    axes = ints(constants, 1, "axes")
    return lambda x, *_: x.squeeze() if axes is None else x.squeeze(tuple(axes))


@makes("Unsqueeze")
def _unsqueeze(attributes: Attributes, constants: Constants) -> Compute:
    axes = ints(constants, 1, "axes") or []

    def compute(x: Tensor, _: Tensor) -> Tensor:
        for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return compute


@makes("Expand")
def _expand(attributes: Attributes, constants: Constants) -> Compute:
    return lambda x, target: x.expand(torch.broadcast_shapes(x.shape, tuple(target.tolist())))


@makes("Shape")
def _shape(attributes: Attributes, constants: Constants) -> Compute:
    start, end = attributes.get("start", 0), attributes.get("end")
    # on the CPU: sizes are read there
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@makes("ConstantOfShape")
def _constant_of_shape(attributes: Attributes, constants: Constants) -> Compute:
    value = attributes.get("value", np.zeros(1, np.float32))
    filled = torch.from_numpy(value.copy())
    return lambda target: torch.full(target.tolist(), filled.item(), dtype=filled.dtype)


@makes("Pad")
def _pad(attributes: Attributes, constants: Constants) -> Compute:
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        attributes.get("mode", "constant")
    )
    pads = ints(constants, 1, "pads")
    if mode is None or pads is None or len(constants) > 3:
        raise NotCoveredError("wrapping, axes, or pads as an attribute")
    value = constants[2].item() if len(constants) > 2 and constants[2] is not None else 0.0
    sizes = torch_pads(pads[: len(pads) // 2], pads[len(pads) // 2 :])
    if mode == "constant":
        return lambda x, *_: F.pad(x, sizes, value=value)
    while sizes[-2:] == [0, 0]:  # torch reflects the last dimensions only
        sizes = sizes[:-2]
    return lambda x, *_: F.pad(x, sizes, mode)


@makes("Cast")
def _cast(attributes: Attributes, constants: Constants) -> Compute:
    dtype = _DTYPES.get(attributes["to"])
    if dtype is None:
        raise NotCoveredError(f"element type {attributes['to']}")
    return lambda x: x.to(dtype)


@makes("CastLike")
def _cast_like(attributes: Attributes, constants: Constants) -> Compute:
    return lambda x, like: x.to(like.dtype)


@makes("DepthToSpace")
def _depth_to_space(attributes: Attributes, constants: Constants) -> Compute:
    size = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def compute(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // size**2, h * size, w * size)

    return compute


@makes("Resize")
def _resize(attributes: Attributes, constants: Constants) -> Compute:
    """Resize, only in the form that `torch.nn.functional.interpolate` is exported in."""
    kind = attributes.get("mode", "nearest")
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    scales, sizes = [constants[i] if len(constants) > i else None for i in (2, 3)]
    if (scales is None or not scales.size) == (sizes is None or not sizes.size):
        raise NotCoveredError("a size that the graph computes")
    if (
        attributes.get("axes")
        or attributes.get("antialias", 0)
        or attributes.get("exclude_outside", 0)
    ):
        raise NotCoveredError("axes, antialiasing or exclude_outside")
    if kind == "nearest":
        if (coordinates, attributes.get("nearest_mode", "round_prefer_floor")) != (
            "asymmetric",
            "floor",
        ):
            raise NotCoveredError(f"nearest values by {coordinates}")
        options: dict[str, Any] = {"mode": "nearest"}
    elif coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if kind == "cubic" and not math.isclose(attributes.get("cubic_coeff_a", -0.75), -0.75):
            raise NotCoveredError("another cubic kernel")
        options = {"mode": kind, "align_corners": coordinates == "align_corners"}
    else:
        raise NotCoveredError(f"positions by {coordinates}")
    given: Any = scales if sizes is None or not sizes.size else sizes
    target = given[2:].tolist()
    names = {
        "linear": {1: "linear", 2: "bilinear", 3: "trilinear"}[len(target)],
        "cubic": "bicubic",
    }
    options["mode"] = names.get(options["mode"], options["mode"])
    if sizes is None or not sizes.size:
        return lambda x, *_: F.interpolate(x, scale_factor=target, **options)
    return lambda x, *_: F.interpolate(x, size=target, **options)
