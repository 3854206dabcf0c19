"""The contract of a job: what the command line, the API and the workers all read.

A `JobSpec` names a dataset and a `Budget`. Every model refuses unknown keys by name, with the
nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from inn_automl.core.augmentation import AugmentationChoice
from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import SpecError, UnknownNameError
from inn_automl.core.fields import Count, Number, Positive, Strict
from inn_automl.core.metric import get_metric
from inn_automl.core.precision import DEFAULT, PRECISIONS
from inn_automl.core.runtimes import RUNTIMES

FAMILY_KINDS = {
    "convnet": ("image",),
    "edsr": ("image",),
    "mlp": ("image", "signal"),
    "mobilenet": ("image",),
    "vit": ("image",),
    "resnet": ("image",),
    "spectrogram": ("signal",),
    "timeseries": ("signal",),
    "signal": ("signal",),
}
"""The architecture families and the kinds of data they take, for those who check a spec without
torch.
"""
IMAGE_TO_IMAGE = frozenset({"edsr"})
"""The families that serve super-resolution; all others serve classification and regression."""
AUTO, NONE = "auto", "none"
"""Words for weights: what the model's library offers, or none."""
BUILTIN_KINDS = {
    "digits": "image",
    "mnist1d": "signal",
    "mnist5k": "image",
    "photo-digits": "image",
}
"""The built-in datasets and their kind of data, for those who check a spec without loading them."""

OLD_KEYS = {
    "family": "model",
    "tune_seconds": "fine_tune_seconds",
}
"""Keys of specs and budgets that have another name now: refused with the new one."""


def _known_precision(value: str) -> str:
    if value not in PRECISIONS:
        raise UnknownNameError("precision", value, PRECISIONS)
    return value


def _known_metric(value: str) -> str:
    return get_metric(value).name


Precision = Annotated[str, AfterValidator(_known_precision)]
FineTuneSeconds = Annotated[float, Number, Field(ge=0, le=3600, allow_inf_nan=False)]
"""Seconds that fine-tuning one model may take; 0 for none."""
_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class DeviceBudget(Strict):
    """One device and the bounds a model must keep on it. A bound left out does not bind.

    Example:
        >>> from inn_automl import Device
        >>> Device(name="laptop", threads=2, max_latency_ms=2.0).percentile
        95.0
    """

    name: _Name
    """Name of the device in fronts, files and commands: letters, digits, `.`, `_` and `-`."""
    agent: _Name | None = None
    """The device agent that measures it. None: the machine that runs the job, or in the service
    the project's only agent."""
    runtime: str = "onnxruntime-cpu"
    """Runtime of the model: `onnxruntime-cpu`, `openvino`, `torch-cpu`, or one of the GPU runtimes,
    which were never run on a GPU. `inn-automl agent --list-runtimes` says which a machine has."""
    threads: Annotated[int, Number, Field(gt=0, le=1024)] = 1
    """Threads that compute one inference."""
    batch_size: Annotated[int, Number, Field(gt=0, le=4096)] = 1
    """Samples in one inference. Latencies are per batch."""
    max_latency_ms: Positive | None = None
    """Bound on the latency, in milliseconds per batch, at `percentile`."""
    percentile: Annotated[float, Number, Field(ge=50, lt=100)] = 95.0
    """Percentile of the latency that `max_latency_ms` bounds, and that the front's latency axis
    shows.
    """
    max_params: Count | None = None
    """Bound on the number of parameters."""
    max_macs: Count | None = None
    """Bound on the multiply-accumulates for one sample."""
    max_size_bytes: Count | None = None
    """Bound on the size of the ONNX file."""
    max_memory_bytes: Count | None = None
    """Bound on the resident memory that loading and running the model adds to a process that has
    the runtime.
    """
    granularity: Annotated[int, Number, Field(gt=0, le=256)] = 1
    """Widths searched for this device are multiples of this many channels, if a group's size
    allows. The job says which steps its measurements suggest.
    """
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = (DEFAULT,)
    """Precisions that a model may compute in: `[fp32, int8]` on `onnxruntime-cpu`, `[fp32, fp16]`
    on GPUs. The search chooses for each model, by the accuracy, latency and size of that very file.
    """

    @field_validator("runtime")
    @classmethod
    def _known_runtime(cls, value: str) -> str:
        if value not in RUNTIMES:
            raise UnknownNameError("runtime", value, RUNTIMES)
        return value

    @field_validator("precisions")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in PRECISIONS if name in value)

    @model_validator(mode="after")
    def _precisions_of_the_runtime(self) -> DeviceBudget:
        known = RUNTIMES[self.runtime].precisions
        other = next((name for name in self.precisions if name not in known), None)
        if other:
            able = " and ".join(
                name for name, runtime in RUNTIMES.items() if other in runtime.precisions
            )
            raise ValueError(
                f"runtime {self.runtime!r} computes in {' and '.join(known)}, not {other!r}, which "
                f"{able} would: "
                "leave it out of `precisions`"
            )
        return self


class TrainingBudget(Strict):
    """Limits of training. It stops at `max_minutes` or `max_epochs`, whichever comes first."""

    max_minutes: Positive = 30.0
    """Training stops after this time, or after `max_epochs`, whichever comes first."""
    max_epochs: Count | None = None
    """Epochs of each trial at most."""
    cpus: Count = 1
    """Processors that training, evaluation and fine-tuning may use."""
    gpus: Annotated[int, Number, Field(ge=0)] = 0
    """GPUs that training may use."""
    trials: Annotated[int, Number, Field(gt=0, le=1000)] | None = None
    """Training candidates (learning rate, weight decay, depth and width of the family) that ASHA
    chooses from. Left out: four, or fewer where each would have less than ten epochs, and one where
    training starts from weights.
    """
    workers_per_trial: Count = 1
    """Processes, on one machine or several, that train one candidate together: each takes a part
    of every batch.
    """

    @model_validator(mode="after")
    def _enough_for_a_trial(self) -> TrainingBudget:
        what, available = ("gpus", self.gpus) if self.gpus else ("cpus", self.cpus)
        if self.workers_per_trial > available:
            raise ValueError(
                f"workers_per_trial = {self.workers_per_trial} is more than {what} = {available}: "
                f"give at least as many {what}, or fewer workers"
            )
        return self


class SearchBudget(Strict):
    """Limits of the width search."""

    max_evaluations: Count = 200
    """Accuracy evaluations of the whole job, shared by all its devices."""
    batch_size: Annotated[int, Number, Field(gt=0, le=1000)] = 10
    """Candidates proposed at a time for one device."""
    patience: Annotated[int, Number, Field(gt=0)] = 5
    """The search stops when no device's hypervolume grew by 0.1 % in this many batches."""
    max_measurements: Annotated[int, Number, Field(ge=10, le=1000)] = 60
    """Widths measured on each device to predict its latency, those before the search and those in
    it. Twice as many where the cost model is not reliable; finalists are measured on top."""
    fine_tune_seconds: FineTuneSeconds = 0.0
    """Seconds that each point of the final fronts is fine-tuned before it is published (see
    `training.fine_tuning`); 0: not at all. Each takes one processor, as many at a time as
    `training.cpus`; all of them if there are fewer points.
    """


class Budget(Strict):
    """The hardware budget of a job: `budget.yaml`.

    Example:
        >>> from inn_automl import Budget, Device
        >>> budget = Budget(devices=(Device(name="laptop", max_latency_ms=2.0),))
        >>> budget.training.max_minutes, budget.search.max_evaluations
        (30.0, 200)
    """

    devices: Annotated[tuple[DeviceBudget, ...], Field(min_length=1)]
    training: TrainingBudget = TrainingBudget()
    search: SearchBudget = SearchBudget()
    max_minutes: Positive | None = None
    """Time of the whole job; None: no limit but those of training and search. Stages get shares of
    it: training ends earlier, fewer widths are evaluated, fewer finalists measured."""

    @model_validator(mode="after")
    def _unique_names(self) -> Budget:
        names = [device.name for device in self.devices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two devices are named {twice[0]!r}: give each its own name")
        return self

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that at least one of the devices offers."""
        return tuple(
            name for name in PRECISIONS if any(name in device.precisions for device in self.devices)
        )


class JobSpec(Strict):
    """All that determines a job's result, but for the hardware it runs on."""

    dataset: Annotated[str, Field(min_length=1)]
    """Name of a built-in dataset, or a path or URL of one (see `load_dataset`)."""
    budget: Budget
    model: str | None = None
    """A model family, `timm:NAME`, `torchvision:NAME`, or `package.module:factory`; None lets the
    data and the budget choose.
    """
    weights: Annotated[str, Field(min_length=1)] | None = None
    """A file of weights; `auto` for those that the model's library offers; `none`. Left out, a
    network of a library starts from what its library offers, if that can be had.
    """
    metric: Annotated[str, AfterValidator(_known_metric)] | None = None
    """What models are compared by: of a classification `accuracy`, `balanced_accuracy`,
    `macro_f1`, `auroc` or `recall:CLASS`; None for the task's own (`accuracy`, `r2`, `psnr_db`)."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the loss of a classification: `balanced` lets all weigh the same,
    however many samples they have."""
    seed: Annotated[int, Number, Field(ge=0, lt=2**31)] = 0
    data: DataOptions = DataOptions()
    """How the dataset is read."""
    augmentation: AugmentationChoice = "auto"
    """How training varies samples: `auto` (by task and size), `none`, `light`, `strong`, or a list
    of `shift`, `resized_crop`, `flip`, `trivial_augment`, `erasing`, `mixup` and `cutmix`.
    """


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], value: Any, *, where: str) -> Model:
    """Validates `value` as `model`.

    Args:
        where: what the value is called in messages, e.g. the file it came from.

    Raises:
        UnknownNameError: a key or a name that does not exist.
        SpecError: anything else that does not fit, with the key, the value and what is allowed.
    """
    if not isinstance(value, dict):
        raise SpecError(
            f"{where} must be a mapping of keys to values, not {type(value).__name__}: "
            f"{value!r:.80}."
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _spec_error(model, error, where) from None


def load_budget(path: str | Path) -> Budget:
    """Reads a budget.yaml.

    Raises:
        UnknownNameError: a key or a name that does not exist.
        SpecError: the file is missing, is not YAML, or does not fit; the message names key, value
            and hint.
    """
    path = Path(path)
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(
            f"there is no budget file {str(path)!r}: give the path of a YAML file."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"the budget file {str(path)!r} cannot be read ({error}): give a readable YAML file."
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, MarkedYAMLError) and error.problem_mark:
            mark = error.problem_mark
            reason = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
        raise SpecError(
            f"the budget file {str(path)!r} cannot be read as YAML ({reason}): correct it there."
        ) from None
    return parse(Budget, value, where=f"the budget {str(path)!r}")


def _spec_error(model: type[BaseModel], error: ValidationError, where: str) -> SpecError:
    """The first thing to correct; an unknown key comes first, for it is often why another one is
    missing.
    """
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    location, kind = first["loc"], first["type"]
    source = ", ".join(part for part in (where, ".".join(map(str, location))) if part)
    if kind == "extra_forbidden":
        owner = ", ".join(part for part in (where, ".".join(map(str, location[:-1]))) if part)
        if new := OLD_KEYS.get(str(location[-1])):
            return SpecError(f"{owner}: the key {location[-1]!r} is called {new!r} now: rename it.")
        return UnknownNameError(
            "key", str(location[-1]), _model_at(model, location[:-1]).model_fields, owner
        )
    if kind == "missing":
        return SpecError(f"{where} lacks the key {'.'.join(map(str, location))!r}: add it.")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UnknownNameError):
        return UnknownNameError(cause.kind, cause.name, cause.known, source)
    if kind in ("model_type", "model_attributes_type"):
        message = "input should be a mapping of keys to values"
    elif kind == "tuple_type":
        message = "input should be a list"
    elif kind == "too_short":
        message = f"give at least {first['ctx']['min_length']}"
    else:
        message = first["msg"].removeprefix("Value error, ")
    value = f" = {first['input']!r:.80}" if location else ""
    return SpecError(f"{source}{value}: {message[0].lower()}{message[1:]}.")


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that a location inside of `model` belongs to."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            arguments = getattr(annotation, "__args__", (annotation,))
            model = next(a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel))
    return model
