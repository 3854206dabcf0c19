"""README.md of a bundle: what the model is, what it was trained on, and how well it does.

Its sections are those of a model card (M. Mitchell et al., "Model Cards for Model Reporting", FAT*
2019) that the evidence of a job can fill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inn_automl.core.listing import abbreviate
from inn_automl.core.metric import get_metric
from inn_automl.export.records import AudioInput, BundleConfig, ImageInput

_MAX_CLASSES_SHOWN = 20


def model_card(config: BundleConfig, size_bytes: Mapping[str, int]) -> str:
    """The text of README.md.

    Args:
        size_bytes: of the other members of the bundle.
    """
    sections = [
        f"# {config.family} for {config.task} of {config.dataset.name}",
        _summary(config, size_bytes),
        "## Use",
        _use(config, ANY_SIZE in size_bytes),
        "## Input and output",
        _input(config),
        _output(config),
        "## Training data and evaluation",
        _evaluation(config),
        "## Latency",
        _latency(config),
        "## Weights and licence",
        _origin(config),
        "## Architecture",
        _table(("group of channels", "width"), [(k, str(v)) for k, v in config.widths.items()]),
        "`config.json` holds all of this and the rest of the evidence, for programs.",
    ]
    return "\n\n".join(sections) + "\n"


ANY_SIZE = "model_any_size.onnx"


def _summary(config: BundleConfig, size_bytes: Mapping[str, int]) -> str:
    return (
        f"Point `{config.id}` of a front: {config.params:,} parameters, {config.macs:,} "
        f"multiply-accumulates a sample, {config.precision}; `model.onnx` has "
        f"{size_bytes['model.onnx']:,} bytes."
    )


def _use(config: BundleConfig, has_any_size: bool) -> str:
    files = "photo.jpg" if config.preprocessing.image else "recording.wav"
    given = files if has_any_size else "sample.npy"
    lines = [
        f"```bash\npython predict.py {given}\ninn-automl predict . {given}  # with inn_automl\n```",
        "- `model.onnx`: raw values of the input's size, as they are in the dataset; standardized "
        "inside. Batches of any size.",
    ]
    if has_any_size and config.preprocessing.image:
        lines.append(
            f"- `{ANY_SIZE}`: one image of any size as uint8 (height, width, channels); resized "
            "and standardized inside, probabilities come out. Its weights are read from "
            "`model.onnx` in the same folder. It needs a runtime whose Resize knows `antialias` "
            "(ONNX opset 18), such as ONNX Runtime."
        )
    elif has_any_size:
        lines.append(
            f"- `{ANY_SIZE}`: one recording of any length as float32 (length, channels) at the "
            "rate below; cut into windows inside, the mean of their probabilities comes out. Its "
            "weights are read from `model.onnx` in the same folder."
        )
    lines.append("- `weights.safetensors`: the state dict of the torch module.")
    return "\n".join([lines[0], "", *lines[1:]])


def _input(config: BundleConfig) -> str:
    shape = " x ".join(map(str, config.input.shape))
    preprocessing = config.preprocessing
    if preprocessing.image:
        return f"Input: {_image(preprocessing.image)} The network takes {shape}."
    if preprocessing.audio:
        return f"Input: {_audio(preprocessing.audio)} The network takes {shape}."
    return f"Input: arrays of {shape}, values as in the dataset."


def _image(image: ImageInput) -> str:
    colours = "grey" if image.channels == 1 else "RGB"
    values = "0 to 255" if image.dtype == "uint8" else "0 to 65535"
    height, width = image.stored_size
    how = {
        "crop": f"short side resized with the aspect kept, cut to the centre of {height} x {width}",
        "pad": f"resized with the aspect kept and padded to {height} x {width}",
        "stretch": f"stretched to {height} x {width}",
    }[image.resize]
    inner = ""
    if image.input_size != image.stored_size:
        inner = f", of which the centre of {image.input_size[0]} x {image.input_size[1]} is taken"
    return (
        f"{colours} images ({values}), upright; {how} ({image.interpolation}, antialiased){inner}."
    )


def _audio(audio: AudioInput) -> str:
    channels = "mono (mixed down)" if audio.channels == 1 else f"{audio.channels} channels"
    seconds = audio.window_samples / audio.sample_rate_hz
    return (
        f"recordings at {audio.sample_rate_hz} Hz, {channels}, full scale from -1 to 1; windows of "
        f"{seconds:g} s that start every {audio.hop_samples / audio.sample_rate_hz:g} s."
    )


def _output(config: BundleConfig) -> str:
    if config.task == "classification":
        names = abbreviate([f"`{name}`" for name in config.classes], _MAX_CLASSES_SHOWN)
        return f"Output: one logit for each of {len(config.classes)} classes: {names}."
    if config.task == "regression":
        return f"Output: {config.output.shape[0]} number(s) in the units of the dataset's targets."
    return f"Output: an image of {' x '.join(map(str, config.output.shape))}."


def _evaluation(config: BundleConfig) -> str:
    found, metric = config.metric, get_metric(config.metric.name)
    low, high = (metric.text(value) for value in found.test_ci)
    lines = [
        f"Trained on the training split of `{config.dataset.name}` (fingerprint "
        f"`{config.dataset.fingerprint[:12]}`).",
        "",
        _table(
            (metric.label, "value", "meaning"),
            [
                (
                    "test",
                    f"{metric.text(found.test)} ({low} to {high})",
                    f"95 % interval, {found.num_test_samples} samples that nothing else used",
                ),
                ("validation", metric.text(found.validation), "the search chose by this split"),
            ],
        ),
        "",
        "These numbers hold for data like the test split. Nothing here says how the model does on "
        "data from elsewhere, nor how its errors spread over groups of people.",
    ]
    return "\n".join(lines)


def _latency(config: BundleConfig) -> str:
    if not config.latency:
        return "Not measured."
    rows = [
        (
            name,
            f"{one.runtime}, {one.threads} thread(s), batch {one.batch_size}",
            *(f"{getattr(one.latency_ms, key):.3g}" for key in ("p50", "p95", "p99")),
        )
        for name, one in config.latency.items()
    ]
    return (
        _table(("device", "measured with", "p50 (ms)", "p95", "p99"), rows)
        + "\n\nOf `model.onnx`; decoding and resizing of files come on top."
    )


def _origin(config: BundleConfig) -> str:
    if config.weights is None:
        return "Trained from random weights: no licence but that of the data applies."
    origin = config.weights
    return "\n".join(
        [
            f"- Training started from: {origin.source}",
            f"- Licence of these weights: {origin.licence}. It may bind what you do with this "
            "model.",
            f"- SHA-256: `{origin.sha256}`",
            *(f"- {note}" for note in origin.notes),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
