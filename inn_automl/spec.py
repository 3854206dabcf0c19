"""The contract of a job: what the command line, the API and the workers all read.

A `JobSpec` names a dataset and a `Budget`. Every model refuses unknown keys by name, with the nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from inn_automl.errors import SpecError, UnknownNameError

RUNTIMES = ("onnxruntime-cpu",)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeviceBudget(_Strict):
    """One device and the bounds a model must keep on it. A bound left out does not bind."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    runtime: str = "onnxruntime-cpu"
    threads: Annotated[int, Field(gt=0, le=1024)] = 1
    batch_size: Annotated[int, Field(gt=0, le=4096)] = 1
    max_latency_ms: Positive | None = None
    percentile: Annotated[float, Field(ge=50, lt=100)] = 95.0
    """Percentile of the latency that `max_latency_ms` bounds, and that the front's latency axis shows."""
    max_params: Count | None = None
    max_macs: Count | None = None
    max_size_bytes: Count | None = None
    granularity: Annotated[int, Field(gt=0, le=256)] = 1
    """Widths searched for this device are multiples of this many channels (where a group's size allows)."""

    @field_validator("runtime")
    @classmethod
    def _known_runtime(cls, value: str) -> str:
        if value not in RUNTIMES:
            raise UnknownNameError("runtime", value, RUNTIMES)
        return value


class TrainingBudget(_Strict):
    """What training may cost: it stops at `max_minutes` or `max_epochs`, whichever comes first."""

    max_minutes: Positive = 30.0
    max_epochs: Count | None = None
    cpus: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    trials: Annotated[int, Field(gt=0, le=1000)] = 4
    """Training candidates (learning rate, weight decay, depth and width of the family) that ASHA chooses from."""


class SearchBudget(_Strict):
    """What the width search may cost."""

    max_evaluations: Count = 200
    """Accuracy evaluations of the whole job, shared by all its devices."""
    batch_size: Annotated[int, Field(gt=0, le=1000)] = 10
    patience: Annotated[int, Field(gt=0)] = 5
    """The search stops when no device's hypervolume grew by 0.1 % in this many batches."""


class Budget(_Strict):
    """The hardware budget of a job: `budget.yaml`."""

    devices: Annotated[tuple[DeviceBudget, ...], Field(min_length=1)]
    training: TrainingBudget = TrainingBudget()
    search: SearchBudget = SearchBudget()

    @model_validator(mode="after")
    def _unique_names(self) -> Budget:
        names = [device.name for device in self.devices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two devices are named {twice[0]!r}: give each its own name")
        return self


class JobSpec(_Strict):
    """All that determines a job's result, but for the hardware it runs on."""

    dataset: str
    """Name of a built-in dataset, or a path to an .npz file, a folder or a ZIP of class folders."""
    budget: Budget
    family: str | None = None
    """Architecture family; None lets the kind of the data choose."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


Model = TypeVar("Model", bound=_Strict)


def parse(model: type[Model], value: Any, *, where: str) -> Model:
    """Validates `value` as `model`.

    Args:
        where: what the value is called in messages, e.g. the file it came from.

    Raises:
        UnknownNameError: a key or a name that does not exist.
        SpecError: anything else that does not fit, with the key, the value and what is allowed.
    """
    if not isinstance(value, dict):
        raise SpecError(f"{where} must be a mapping of keys to values, not {type(value).__name__}: {value!r:.80}.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _spec_error(model, error, where) from None


def load_budget(path: str | Path) -> Budget:
    """Reads a budget.yaml.

    Raises:
        SpecError: the file is missing, is not YAML, or does not fit; the message names the key, the value and the remedy.
    """
    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"there is no budget file {str(path)!r}: give --budget the path of a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the budget file {str(path)!r} cannot be read ({error}): give a readable YAML file.") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"the budget file {str(path)!r} is not YAML: {reason}. Correct it at that place.") from None
    return parse(Budget, value, where=f"the budget {str(path)!r}")


def _spec_error(model: type[BaseModel], error: ValidationError, where: str) -> SpecError:
    first = error.errors()[0]
    location = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner = _model_at(model, first["loc"][:-1])
        unknown = UnknownNameError(f"key in {where} at", location, owner.model_fields)
        nearest = UnknownNameError("key", str(first["loc"][-1]), owner.model_fields)
        unknown.args = (f"{where} has an unknown key at {location!r}: {nearest}",)
        return unknown
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SpecError):
        cause.args = (f"{where}, {location}: {cause}",)
        return cause
    if first["type"] == "missing":
        return SpecError(f"{where} lacks the key {location!r}: add it.")
    message = first["msg"].removeprefix("Value error, ")
    place = f"{where}, {location} = {first['input']!r:.80}" if location else where
    return SpecError(f"{place}: {message[0].lower()}{message[1:]}.")


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that a location inside of `model` belongs to."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            arguments = getattr(annotation, "__args__", (annotation,))
            model = next(a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel))
    return model


