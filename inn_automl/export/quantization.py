"""A float32 ONNX file as an int8 one: static quantization by ONNX Runtime, calibrated on training
samples.

The file keeps its ports: raw float32 values in, float32 logits out, any batch. The standardization
of the input stays float32 inside, as does what makes a spectrogram of sound, and so do the logits,
which would lose most of what quantization loses at all: with them quantized the largest logit of a
ResNet was off by 0.19 of itself, without by 0.03, and no slower. Where the output is brought to the
units of targets, that is float32 too. A network that makes images also keeps the convolutions that
read the input: what they make goes into every pixel, and weights of 7 bits would be the largest
error.

What was chosen, and what for (benchmarks/precision.py has the figures of one machine):

- weights signed, a scale for each output channel: as fast as one scale for the tensor, and more
  accurate where a layer has few inputs a channel (depthwise convolutions);
- activations unsigned: with signed ones ONNX Runtime's x86 kernels took three times as long;
- weights of 7 bits. Without them the sums of processors that lack dot product instructions (VNNI)
  saturate, so that a file's accuracy would depend on the machine. With them it is the same
  everywhere, and was the same as with 8 bits;
- the smallest and largest activation as its range: percentiles and entropy were no more accurate,
  and slower.

The ranges are computed here and passed to ONNX Runtime's quantizer. Its `quantize_static` makes the
same graph (scales differ in their last digit) but calibrates in a session that takes all cores,
where a job quantizes many candidates side by side, each on a core of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel

from inn_automl.core.errors import ExportError, StorageError
from inn_automl.core.precision import METADATA_KEY
from inn_automl.core.storage import write_atomically
from inn_automl.core.version import __version__
from inn_automl.export.denormalization import denormalization_nodes
from inn_automl.export.fp16 import float32_counterpart
from inn_automl.export.front_end import front_end_nodes
from inn_automl.export.onnx_graph import CONVOLUTIONS
from inn_automl.export.raw_model import INPUT

NUM_CALIBRATION = 256
"""Training samples that the ranges of activations are found on, at most."""
_CALIBRATION_VALUES = 2**23
"""Input values of all of them together, at most: 55 colour images of 224 x 224. With 64 of them an
EfficientNet-lite0 agreed with its float file as often as with 256 (52 and 54 of 96 photographs), in
3.3 s instead of 8.7."""
_FEWEST_CALIBRATION = 32

OPERATIONS = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Concat",
    "GlobalAveragePool",
    "AveragePool",
    "MaxPool",
    "Relu",
    "Clip",
    "Sigmoid",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Split",
    "Slice",
    "Pad",
    "Resize",
)
"""Operators with int8 kernels in ONNX Runtime, or that only move values; others stay float32."""

_BATCH_VALUES = 2**16  # input values that are run at once: activations take some 50 times as many
_INFERRED = {
    "onnx.infer": "onnxruntime.quant"
}  # how ONNX Runtime's quantizer marks a graph whose shapes are known


def num_calibration(input_shape: Sequence[int]) -> int:
    """Training samples of a shape that the ranges of activations are found on."""
    fitting = _CALIBRATION_VALUES // max(1, prod(input_shape))
    return min(NUM_CALIBRATION, max(_FEWEST_CALIBRATION, fitting))


def quantize_onnx(
    source: str | Path,
    target: str | Path,
    samples: NDArray[np.generic],
    *,
    per_channel: bool = True,
    reduce_range: bool = True,
    signed_activations: bool = False,
) -> int:
    """Writes a float32 ONNX file as an int8 one; the same file and samples give the same bytes.

    Args:
        source: a file as `export_onnx` writes it.
        samples: (N, *input_shape), raw values of training samples; the first `num_calibration`
            are used.
        per_channel: a scale of the weights for each output channel, not one for the tensor.
        reduce_range: weights of 7 bits, which no x86 kernel's sums overflow on.
        signed_activations: from -128 to 127, not from 0 to 255.

    Returns:
        The size of the file in bytes.

    Raises:
        ExportError: the graph cannot be quantized, or there is no sample.
        StorageError: a file cannot be read or written.
    """
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise StorageError(
            f"{str(source)!r} cannot be read ({error.strerror}): export the module first."
        ) from error
    if not len(samples):
        raise ExportError(
            f"there is no sample to quantize {str(source)!r} with: give at least one."
        )
    try:
        quantized = _quantize(
            onnx.load_model_from_string(data),
            np.asarray(samples[: num_calibration(samples.shape[1:])], np.float32),
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_qType=QuantType.QInt8 if signed_activations else QuantType.QUInt8,
        )
    except (
        Exception
    ) as error:  # ONNX Runtime's quantizer and sessions share no base class of their errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(
            f"{str(source)!r} cannot be quantized ({reason}): leave int8 out."
        ) from error
    write_atomically(Path(target), quantized)
    return len(quantized)


def _quantize(model: onnx.ModelProto, samples: NDArray[np.float32], **options: Any) -> bytes:
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    _average_globally(model.graph)
    restored = denormalization_nodes(model.graph)
    onnx.helper.set_model_props(model, _INFERRED)
    quantizer = QDQQuantizer(
        model,
        weight_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, _ranges(model, samples)),
        nodes_to_quantize=[],
        nodes_to_exclude=[
            node.name
            for node in [
                *restored,
                *_reading_images(model.graph),
                *front_end_nodes(model.graph),
            ]
        ],
        op_types_to_quantize=OPERATIONS,
        extra_options={},
        **options,
    )
    quantized: onnx.ModelProto = quantizer.quantize_model()
    _free_output(quantized.graph, [node.name for node in restored])
    # The quantizer appends what it adds: ONNX Runtime sorts such files, other readers refuse them.
    ONNXModel(quantized).topological_sort()
    del quantized.graph.value_info[:]
    onnx.helper.set_model_props(quantized, {**metadata, METADATA_KEY: "int8"})
    quantized.producer_name, quantized.producer_version = "inn_automl", __version__
    return quantized.SerializeToString(deterministic=True)


def _average_globally(graph: onnx.GraphProto) -> None:
    """Makes GlobalAveragePool, which has an int8 kernel, of means over all axes but batch and
    channels.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        rank = ranks.get(node.input[0], 0)
        axes = (
            sorted(
                int(axis) % rank for axis in onnx.numpy_helper.to_array(constants[node.input[1]])
            )
            if rank
            else []
        )
        keeps = next(
            (attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1
        )
        if keeps and rank > 2 and axes == list(range(2, rank)):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
    used = {name for node in graph.node for name in node.input}
    used_tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(used_tensors)


def _ranges(
    model: onnx.ModelProto, samples: NDArray[np.float32]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Finds the smallest and largest value of every float32 tensor over the samples."""
    names = [
        value.name
        for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    known = {value.name: value for value in model.graph.value_info}
    observed.graph.output.extend(known[name] for name in names if name in known)
    session = _session(observed.SerializeToString())
    outputs = [name for name in names if name != INPUT]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for batch in _batches(samples):
        for name, values in zip(
            [INPUT, *outputs], [batch, *session.run(outputs, {INPUT: batch})], strict=True
        ):
            low, high = values.min(), values.max()
            if name in found:
                low, high = np.minimum(low, found[name][0]), np.maximum(high, found[name][1])
            found[name] = (np.asarray(low, np.float32), np.asarray(high, np.float32))
    return found


def _reading_images(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Convolutions that read the input of a network from images to images, and all nodes
    before them.
    """
    if len(graph.output[0].type.tensor_type.shape.dim) != 4:
        return []
    from_input, found = {INPUT}, []
    for node in graph.node:  # in the order in which they run
        if from_input.intersection(node.input):
            found.append(node)
            if node.op_type not in CONVOLUTIONS:
                from_input.update(node.output)
    return found


def _free_output(graph: onnx.GraphProto, restored: Sequence[str]) -> None:
    """Takes the rounding of the network's output out of a quantized graph.

    Args:
        restored: names of the nodes that the graph's output is still computed by from it, the last
            one first.
    """
    producers = {name: node for node in graph.node for name in node.output}
    name = graph.output[0].name
    for _ in restored:
        name = next(value for value in producers[name].input if value in producers)
    last = producers[name]
    if last.op_type != "DequantizeLinear" or last.input[0] not in producers:
        return
    rounding = producers[last.input[0]]
    producer = producers[rounding.input[0]]
    producer.output[list(producer.output).index(rounding.input[0])] = name
    graph.node.remove(last)
    graph.node.remove(rounding)
    used = {name for node in graph.node for name in node.input}
    for name in [*last.input, *rounding.input]:
        for tensor in [
            tensor for tensor in graph.initializer if tensor.name == name and name not in used
        ]:
            graph.initializer.remove(tensor)


class Samples(Protocol):
    """Raw samples (N, *input_shape): an array, or what reads a part of them when it is wanted."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def outputs(
    path: str | Path, samples: Samples, *, threads: int = 1
) -> Iterator[NDArray[np.float32]]:
    """Computes the outputs of an ONNX file for raw samples (N, *input_shape) in ONNX Runtime on
    the CPU, batch by batch.

    Of a float16 file, what it gives where there are kernels for float16: see
    `fp16.float32_counterpart`.

    Raises:
        ExportError: the file cannot be run.
    """
    try:
        session = _session(float32_counterpart(Path(path).read_bytes()), threads)
        for batch in _batches(samples):
            yield session.run(None, {INPUT: batch})[0]
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = " ".join(str(error).split())
        raise ExportError(
            f"{str(path)!r} cannot be run in ONNX Runtime ({reason}): export it again."
        ) from error


def _batches(samples: Samples) -> Iterator[NDArray[np.float32]]:
    size = max(1, _BATCH_VALUES // max(1, samples[0].size))
    for start in range(0, len(samples), size):
        yield np.ascontiguousarray(samples[start : start + size], dtype=np.float32)


def _session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
