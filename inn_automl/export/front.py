"""`model_any_size.onnx`: the network of a bundle behind what brings a file's content to its input.

- Images: uint8 (height, width, channels), of 1, 3 or 4 channels (alpha is dropped), as decoders
  give them. They are converted to the channels of the network, resized with antialiasing, cut or
  padded, and classified.
- Recordings: float32 (length, channels) at the network's rate, cut into windows that overlap by
  half; the probabilities are averaged over the windows.

Its weights are external data that point into `model.onnx`, so that they are stored once: both
files have to lie in one folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, compose, helper, parser

from inn_automl.core.errors import ExportError
from inn_automl.export.raw_model import LOGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inn_automl.export.records import AudioInput, ImageInput, Preprocessing

IMAGE, SAMPLES, PROBABILITIES = "image", "samples", "probabilities"
"""Names of the inputs and of the output of a classifier."""

SMALLEST_EXTERNAL_BYTES = 256
"""Smaller tensors are repeated: saying where they are would take as many bytes."""

_PREFIX = "front/"

_COLOURS = """
        without_alpha = Slice (image, zero, three, last_axis)
        colour_shape = Concat <axis = 0> (size, three)
        colours = Expand (without_alpha, colour_shape)
"""
_CONVERTED = {
    # ITU-R 601-2 luma in 16 bits, as Pillow has it; float32 holds these products exactly.
    ("uint8", 1): f"""{_COLOURS}
        luma = Constant <value_floats = [19595.0, 38470.0, 7471.0]> ()
        half = Constant <value_float = 32768.0> ()
        unit = Constant <value_float = 65536.0> ()
        numbers = Cast <to = 1> (colours)
        weighted = Mul (numbers, luma)
        summed = ReduceSum <keepdims = 1> (weighted, last_axis)
        rounded = Add (summed, half)
        scaled_grey = Div (rounded, unit)
        grey = Floor (scaled_grey)
        converted = Cast <to = 2> (grey)""",
    ("uint8", 3): f"""{_COLOURS}
        converted = Identity (colours)""",
    ("float32", 1): """
        converted = Identity (image)""",
}
"""From an image to the channels of the network."""


def any_size_model(model: bytes, preprocessing: Preprocessing, model_name: str) -> bytes | None:
    """The bytes of `model_any_size.onnx`.

    Args:
        model: the bytes of `model.onnx`.
        preprocessing: of the bundle.
        model_name: name of the file in the same folder that holds the weights.

    Returns:
        The model; None where the dataset holds neither images nor recordings, so that there is
        nothing to be done before `model.onnx`.

    Raises:
        ExportError: the graphs could not be joined.
    """
    if preprocessing.image is not None:
        text = image_front(preprocessing.image)
    elif preprocessing.audio is not None:
        text = audio_front(preprocessing.audio)
    else:
        return None
    network = onnx.load_from_string(model)
    opset = next(one.version for one in network.opset_import if not one.domain)
    try:
        header = f'<ir_version: {network.ir_version}, opset_import: ["" : {opset}]>\n'
        front = _without_unused(parser.parse_model(header + text))
        joined = compose.merge_models(
            front,
            network,
            io_map=[(front.graph.output[0].name, network.graph.input[0].name)],
            prefix1=_PREFIX,
        )
    except Exception as error:  # the parser and `compose` raise what their checks raise
        reason = " ".join(str(error).split())
        raise ExportError(
            f"the front of images and recordings does not fit the network ({reason:.300}): use "
            f"another version of onnx."
        ) from error
    joined.graph.input[0].name = _rename(joined.graph, joined.graph.input[0].name)
    _finish(joined, averages=preprocessing.audio is not None)
    _share_weights(joined, model, model_name)
    return joined.SerializeToString(deterministic=True)


def image_front(image: ImageInput) -> str:
    """The graph from an image to the input of the network, in ONNX's text form."""
    height, width = image.input_size
    stored = _ints(image.stored_size)
    channels = image.channels
    kind, code = ("uint8", TensorProto.UINT8) if image.dtype == "uint8" else ("float", 1)
    return f"""
    image_front ({kind}[height, width, channels] image)
        => (float[1, {channels}, {height}, {width}] standardizable)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] three = {{3}},
         int64[1] depth = {{{channels}}}, int64[1] last_axis = {{-1}},
         int64[2] stored = {{{stored}}}, int64[2] wanted = {{{_ints(image.input_size)}}}> {{
        all_sizes = Shape (image)
        size = Slice (all_sizes, zero, two)
        {_CONVERTED[image.dtype, channels].strip()}
        planes = Transpose <perm = [2, 0, 1]> (converted)
        batch = Unsqueeze (planes, zero)
        {_SCALED_SIZE[image.resize].strip()}
        sizes = Concat <axis = 0> (one, depth, scaled)
        {_RESIZED[image.interpolation].strip()}
        {_framed(image, code).strip()}
        standardizable = Cast <to = 1> (cut)
    }}"""


# In float64 and rounded half to even, as `data.preprocessing.Preprocessing.scaled_size`.
_RATIOS = """
        exact = Cast <to = 11> (size)
        goal = Cast <to = 11> (stored)
        ratios = Div (goal, exact)
"""
_ROUNDED = """
        ideal = Mul (exact, ratio)
        rounded_size = Round (ideal)
        whole = Cast <to = 7> (rounded_size)
"""
_SCALED_SIZE = {
    "stretch": """
        scaled = Identity (stored)""",
    "crop": f"""{_RATIOS}
        ratio = ReduceMax <keepdims = 1> (ratios)
        {_ROUNDED}
        scaled = Max (whole, stored)""",
    "pad": f"""{_RATIOS}
        ratio = ReduceMin <keepdims = 1> (ratios)
        {_ROUNDED}
        positive = Max (whole, one)
        scaled = Min (positive, stored)""",
}

# Sizes of all four axes: ONNX Runtime 1.32 cannot change the layout of a Resize with `axes`, which
# it tries before int8 convolutions.
_ANTIALIASED = "antialias = 1, exclude_outside = 1"
_RESIZED = {
    # On bytes this is Pillow's own algorithm.
    "bilinear": f"""
        resized = Resize <{_ANTIALIASED}, mode = "linear"> (batch, , , sizes)""",
    "bicubic": f"""
        resized = Resize <{_ANTIALIASED}, mode = "cubic", cubic_coeff_a = -0.5>
            (batch, , , sizes)""",
    "nearest": """
        resized = Resize <mode = "nearest", nearest_mode = "round_prefer_ceil">
            (batch, , , sizes)""",
}


def _framed(image: ImageInput, code: int) -> str:
    """Cuts or pads `resized` to `cut`, of the input size."""
    if image.resize == "pad":
        return f"""
        missing = Sub (stored, scaled)
        before = Div (missing, two)
        after = Sub (missing, before)
        none = Constant <value_ints = [0, 0]> ()
        pads = Concat <axis = 0> (none, before, none, after)
        fill_number = Constant <value_float = {image.fill!r}> ()
        fill = Cast <to = {code}> (fill_number)
        cut = Pad (resized, pads, fill)"""
    inner = _ints([(s - i) // 2 for s, i in zip(image.stored_size, image.input_size, strict=True)])
    return f"""
        excess = Sub (scaled, stored)
        outer = Div (excess, two)
        inner = Constant <value_ints = [{inner}]> ()
        start = Add (outer, inner)
        end = Add (start, wanted)
        axes = Constant <value_ints = [2, 3]> ()
        cut = Slice (resized, start, end, axes)"""


def audio_front(audio: AudioInput) -> str:
    """The graph from a recording to a batch of windows, in ONNX's text form."""
    window, hop, channels = audio.window_samples, audio.hop_samples, audio.channels
    mixed = (
        "mixed = ReduceMean <keepdims = 1> (samples, one)"
        if channels == 1
        else "mixed = Identity (samples)"
    )
    return f"""
    audio_front (float[length, channels] samples)
        => (float[windows, {channels}, {window}] standardizable)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] window = {{{window}}},
         int64[1] hop = {{{hop}}}, int64[1] almost = {{{hop - 1}}},
         int64 first = {{0}}, int64 step = {{1}}, int64 width = {{{window}}}> {{
        {mixed}
        sizes = Shape (samples)
        length = Slice (sizes, zero, one)
        beyond = Sub (length, window)
        spare = Max (beyond, zero)
        lacking_less = Sub (window, length)
        lacking = Max (lacking_less, zero)
        pads = Concat <axis = 0> (zero, zero, lacking, zero)
        padded = Pad (mixed, pads)
        rounded_up = Add (spare, almost)
        hops = Div (rounded_up, hop)
        count = Add (hops, one)
        count_scalar = Squeeze (count)
        numbers = Range (first, count_scalar, step)
        regular = Mul (numbers, hop)
        starts = Min (regular, spare)
        rows = Unsqueeze (starts, one)
        offsets = Range (first, width, step)
        indices = Add (rows, offsets)
        gathered = Gather <axis = 0> (padded, indices)
        standardizable = Transpose <perm = [0, 2, 1]> (gathered)
    }}"""


def _ints(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes initializers out that no node takes: runtimes warn of them."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def _rename(graph: onnx.GraphProto, name: str) -> str:
    """Takes the prefix off the graph's input."""
    plain = name.removeprefix(_PREFIX)
    for node in graph.node:
        for index, value in enumerate(node.input):
            if value == name:
                node.input[index] = plain
    return plain


def _finish(model: onnx.ModelProto, *, averages: bool) -> None:
    """Probabilities as the output of a classifier, their mean over windows, and a description."""
    graph = model.graph
    (output,) = graph.output
    shape = [one.dim_value or one.dim_param for one in output.type.tensor_type.shape.dim]
    name = output.name
    if name == LOGITS:
        name = PROBABILITIES if not averages else f"{PROBABILITIES}_by_window"
        graph.node.append(helper.make_node("Softmax", [output.name], [name], axis=1))
    if averages:
        graph.initializer.append(helper.make_tensor(f"{_PREFIX}batch_axis", 7, [1], [0]))
        final = PROBABILITIES if output.name == LOGITS else f"mean_{output.name}"
        graph.node.append(
            helper.make_node("ReduceMean", [name, f"{_PREFIX}batch_axis"], [final], keepdims=1)
        )
        name = final
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape[1:]]))
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
    model.doc_string = (
        "The network of model.onnx behind the preprocessing of images or recordings of any size; "
        "its weights are in model.onnx, which has to lie beside it."
    )


def _share_weights(joined: onnx.ModelProto, model: bytes, model_name: str) -> None:
    """Makes larger initializers external data that point to the same bytes in `model`."""
    position = 0
    for tensor in joined.graph.initializer:
        if len(tensor.raw_data) < SMALLEST_EXTERNAL_BYTES:
            continue
        # Tensors are stored in their order, so that each search begins where the last one ended.
        found = model.find(tensor.raw_data, position)
        if found < 0:
            found = model.find(tensor.raw_data)
        if found < 0:
            continue
        num_bytes = len(tensor.raw_data)
        position = found + num_bytes
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", model_name), ("offset", found), ("length", num_bytes)):
            tensor.external_data.add(key=key, value=str(value))
