"""Choosing a job's model, and the size of the images that it takes, before samples are decoded.

The user's choice comes first. Else photographs get a pretrained network of the zoo where its
weights can be had, and everything else one of our families. The size is the user's, the pretrained
network's own, or that of the images; it is lowered where training would not see every sample a few
times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inn_automl.core.spec import AUTO, NONE, JobSpec
from inn_automl.core.storage import read_json
from inn_automl.data import Preprocessing, Scan
from inn_automl.models import default_family
from inn_automl.models.zoo import PretrainedConfig, is_zoo_name, library_of
from inn_automl.pipeline.folder import JOB_FILE
from inn_automl.training.speed import seconds_per_sample

if TYPE_CHECKING:
    from inn_automl.data.preprocessing import Interpolation

PHOTOGRAPH_MODEL = "timm:tf_efficientnet_lite0"
"""390 million multiply-accumulates at 224 pixels, 75 % on ImageNet, and no operator that a small
runtime lacks; its weights are under Apache-2.0."""
_SMALLEST_PHOTOGRAPH = 64
"""Short side, in pixels, from which colour images are taken for photographs."""
_SIDE_STEP = 16
_SMALLEST_PRETRAINED, _SMALLEST_FRESH = 96, 64
"""Sides that are not fallen below for the sake of time. Pretrained networks of stride 32 see three
by three positions at 96 pixels."""
_EPOCHS_PRETRAINED, _EPOCHS_FRESH = 4.0, 12.0
"""Epochs that a size should leave time for."""
_REDUCED_WIDTHS = 1.5
"""Cost of a training with steps at reduced widths, of one at full width alone."""
_USABLE = 0.9
"""Share of the training time that is spent in steps."""
_INTERPOLATIONS: dict[str, Interpolation] = {"bicubic": "bicubic", "nearest": "nearest"}


@dataclass(frozen=True)
class Choice:
    """What a job trains, and on which images.

    Attributes:
        model: its name; None where it takes samples to tell, as of signals.
        preprocessing: of images; None for signals.
        notes: the choices with their reasons, as sentences.
    """

    model: str | None
    preprocessing: Preprocessing | None
    notes: tuple[str, ...] = ()


def choose(spec: JobSpec, scanned: Scan, folder: Path) -> Choice:
    """The choice for a dataset; an earlier one of the same job, if it is resumed.

    Args:
        folder: of the job.

    Raises:
        UnknownNameError: no such model; names the nearest.
        SpecError: the model cannot be made for these samples.
    """
    earlier = _earlier(spec, folder)
    if earlier is not None:
        return earlier
    default = scanned.default_preprocessing()
    if default is None or scanned.task == "super-resolution":
        return Choice(spec.model, default)
    model, reasons = _model(spec, scanned, default)
    config = None
    if is_zoo_name(model):
        library, name = library_of(model)
        library.check(name)
        config = library.config(name)
    preprocessing = _own(config, scanned, default) if config else default
    sized, why = _affordable(spec, scanned, model, preprocessing, config)
    if spec.weights == NONE:
        sized = replace(sized, mean=None, std=None)
    return Choice(model, sized, (*reasons, *why))


def _earlier(spec: JobSpec, folder: Path) -> Choice | None:
    path = folder / JOB_FILE
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict) or record.get("spec") != spec.model_dump(mode="json"):
        return None
    found = record.get("preprocessing")
    preprocessing = Preprocessing.from_metadata(found) if found else None
    return Choice(record.get("model"), preprocessing, tuple(record.get("choices", ())))


def _model(spec: JobSpec, scanned: Scan, default: Preprocessing) -> tuple[str, list[str]]:
    """The model, and why."""
    if spec.model is not None:
        return spec.model, []
    shape = (scanned.channels or 1, *default.input_size)
    family = default_family("image", shape, scanned.task)
    if not _are_photographs(scanned):
        return family, [f"model {family}, which serves images of {_text(default.input_size)}"]
    if spec.weights not in (None, AUTO):
        return family, [f"model {family}, for which weights = {spec.weights!r} is taken"]
    library, name = library_of(PHOTOGRAPH_MODEL)
    if spec.weights == AUTO or library.has_weights(name):
        return PHOTOGRAPH_MODEL, [
            f"model {PHOTOGRAPH_MODEL}, because the samples are photographs, for which pretrained "
            "weights save most of the training"
        ]
    return family, [
        f"model {family}, trained from nothing: pretrained weights would serve photographs "
        f"better, but those of {PHOTOGRAPH_MODEL} are neither cached here nor to be downloaded; "
        "give --model timm:NAME --weights FILE if you have some"
    ]


def _are_photographs(scanned: Scan) -> bool:
    """Colour images that are not tiny."""
    size = scanned.image_size
    return scanned.channels == 3 and size is not None and min(size) >= _SMALLEST_PHOTOGRAPH


def _own(config: PretrainedConfig, scanned: Scan, default: Preprocessing) -> Preprocessing:
    """The preprocessing of a pretrained network, at the size that the user or it gives."""
    channels = scanned.channels or len(config.mean)
    is_byte = scanned.samples is None or scanned.samples.x.dtype.itemsize == 1
    mean = _of_channels(config.mean, channels) if is_byte else None
    std = _of_channels(config.std, channels) if is_byte else None
    wanted = scanned.options.input_size
    if wanted is not None or (scanned.has_one_size and _keeps_size(config, scanned.image_size)):
        return replace(default, mean=_of_bytes(mean), std=_of_bytes(std))
    size = config.input_size
    if not config.is_fixed and scanned.image_size is not None:
        # Enlarged images cost more and show no more.
        side = max(_SMALLEST_PRETRAINED, _rounded(min(scanned.image_size)))
        size = (min(size[0], side), min(size[1], side))
    return Preprocessing.for_size(
        size,
        resize=scanned.options.resize or "crop",
        crop_fraction=config.crop_fraction,
        interpolation=_INTERPOLATIONS.get(config.interpolation, "bilinear"),
        mean=mean,
        std=std,
    )


def _keeps_size(config: PretrainedConfig, size: tuple[int, int] | None) -> bool:
    """Whether images that all have one size are given to the network as they are."""
    if size is None or config.is_fixed:
        return size == config.input_size
    return all(
        _SMALLEST_FRESH <= side <= own for side, own in zip(size, config.input_size, strict=True)
    )


def _affordable(
    spec: JobSpec,
    scanned: Scan,
    model: str,
    preprocessing: Preprocessing,
    config: PretrainedConfig | None,
) -> tuple[Preprocessing, list[str]]:
    """The preprocessing at a size for which the training time is enough, and notes on it."""
    height, width = preprocessing.input_size
    is_free = scanned.options.input_size is None and not (config and config.is_fixed)
    is_pretrained = config is not None and spec.weights != NONE
    least = _SMALLEST_PRETRAINED if is_pretrained else _SMALLEST_FRESH
    sides = list(range(least, min(height, width) + 1, _SIDE_STEP))
    if not is_free or scanned.has_one_size or height != width or len(sides) < 2:
        return preprocessing, []
    shape = (preprocessing.channels or scanned.channels or 1, sides[0], sides[0])
    measured = seconds_per_sample(
        model, shape, scanned.num_outputs or 1, scanned.task, spec.budget.training
    )
    if measured is None:
        return preprocessing, []
    wanted = _EPOCHS_PRETRAINED if is_pretrained else _EPOCHS_FRESH
    available_s = _USABLE * 60 * spec.budget.training.max_minutes
    epoch_s = scanned.num_train * measured * _REDUCED_WIDTHS

    def epochs(side: int) -> float:
        return available_s / (epoch_s * (side / sides[0]) ** 2)

    if epochs(height) >= wanted:
        return preprocessing, []
    side = max((one for one in sides if epochs(one) >= wanted), default=sides[0])
    own = "the pretrained network's own" if is_pretrained else "what the images would allow"
    note = (
        f"images of {side} x {side}, not {height} x {width} ({own}): "
        f"{spec.budget.training.max_minutes:g} minutes of training give about "
        f"{epochs(side):.2g} epochs at it on this machine, {epochs(height):.2g} at the larger; "
        "give --input-size to choose it yourself"
    )
    return preprocessing.with_input_size((side, side)), [note]


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Statistics of colours for another number of channels: the mean for each."""
    if len(values) == channels:
        return values
    return (sum(values) / len(values),) * channels


def _of_bytes(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Statistics of values from 0 to 1, of bytes."""
    return None if values is None else tuple(255 * value for value in values)


def _rounded(side: int) -> int:
    return side - side % _SIDE_STEP


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
