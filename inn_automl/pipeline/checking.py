"""Checking: tells whether the budget can be met at all, before anything is spent.

The smallest network of the family bounds what can be reached. Parameters and multiply-accumulates
are counted; latency, memory and size are measured on the exported smallest network.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inn_automl.core.errors import ImpossibleBudgetError, MeasurementError
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import LatencySummary
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.data import Dataset
from inn_automl.evaluation.onnx_precision import convert_file
from inn_automl.export import export_onnx
from inn_automl.latency.config import QUICK, BenchmarkConfig
from inn_automl.models import get_family
from inn_automl.models.architecture import Architecture
from inn_automl.models.zoo import is_zoo_name
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.memory import measure_memory
from inn_automl.pipeline.planning import CANDIDATES
from inn_automl.pipeline.records import PlannedTrials
from inn_automl.training.recipe import Recipe, TrialSpec
from inn_automl.training.trained import Trained
from inn_automl.width_search.space import SearchSpace

_SCREENING = dataclasses.replace(QUICK, min_processes=2, max_processes=2, min_s=0.2, max_repeated=0)
"""Whether latency comes near its bound at all: mostly it does not."""


@dataclasses.dataclass(frozen=True)
class _Extreme:
    """One network at one end of what an architecture can be."""

    params: int
    macs: int
    size_bytes: int
    path: Path

    def in_precision(self, precision: str, dataset: Dataset) -> _Extreme:
        """The same network in a precision."""
        if precision == DEFAULT:
            return self
        path = self.path.with_suffix(f".{precision}.onnx")
        size_bytes = convert_file(self.path, path, precision, dataset)
        return dataclasses.replace(self, size_bytes=size_bytes, path=path)


def check(context: JobContext, planned: PlannedTrials) -> PlannedTrials:
    """Keeps the candidates whose smallest network meets every bound of every device.

    An architecture that is too large even at its smallest widths is replaced by the family's
    smallest one. It is decided once a job.

    Raises:
        MeasurementError: no device could be measured.
        ImpossibleBudgetError: even the smallest network of the family misses a bound; says the
            range that is possible.
    """
    path = context.folder / CANDIDATES
    if not path.exists():
        with context.stage(Stage.CHECKING):
            fitting = _fitting(context, planned.trials)
        write_json(path, [dataclasses.asdict(trial) for trial in fitting])
    return PlannedTrials(
        tuple(
            TrialSpec(**{**one, "recipe": Recipe.from_dict(one["recipe"])})
            for one in read_json(path)
        )
    )


def _fitting(context: JobContext, trials: Sequence[TrialSpec]) -> list[TrialSpec]:
    family = get_family(context.family)
    least = _architecture(context, min(family.width_multipliers), min(family.depths))
    architectures = {_architecture(context, one.width, one.depth): None for one in trials}
    with tempfile.TemporaryDirectory() as folder:
        fits = {}
        for position, architecture in enumerate(architectures):
            context.progress.update(
                position / len(architectures), detail="the smallest network on each device"
            )
            smallest = _smallest(context, architecture, Path(folder))
            fits[architecture] = not _missed_bounds(context, smallest, context.spec.budget.devices)
        if not any(fits.values()):
            _check_smallest(context, least, Path(folder))
    return [
        one
        if fits[_architecture(context, one.width, one.depth)]
        else _replaced(context, one, least)
        for one in trials
    ]


def _check_smallest(context: JobContext, least: Architecture, folder: Path) -> None:
    """
    Raises:
        ImpossibleBudgetError: the smallest network of the family misses a bound.
    """
    family = get_family(context.family)
    smallest = _smallest(context, least, folder)
    missed = _missed_bounds(context, smallest, context.spec.budget.devices)
    if missed:
        most = _architecture(context, max(family.width_multipliers), max(family.depths))
        reach = f"model {context.family!r}, whose networks for this dataset reach"
        largest = _largest(context, most, folder)
        raise ImpossibleBudgetError(
            _explain(context, missed[0], smallest, largest, reach, "or another --model.")
        )


def _replaced(context: JobContext, trial: TrialSpec, least: Architecture) -> TrialSpec:
    context.progress.note(
        f"width {trial.width:g}, depth {trial.depth} of {context.family} misses the budget at its "
        f"smallest widths: width {least.width:g}, depth {least.depth} is trained instead"
    )
    return dataclasses.replace(trial, width=least.width, depth=least.depth)


def check_trained(context: JobContext, trained: Trained) -> None:
    """Checks that a network that is trained already can meet every bound of every device.

    Raises:
        ImpossibleBudgetError: even its narrowest widths miss a bound; says the range that is
            possible.
    """
    network = trained.network()
    with tempfile.TemporaryDirectory() as folder:

        def extreme(name: str, widths: dict[str, int]) -> _Extreme:
            path, costs = Path(folder) / f"{name}.onnx", network.costs(widths)
            template = context.backend.templates.get(trained.architecture, context.task.dataset)
            exported = template.export(network.discretize(widths).eval(), path, widths=widths)
            return _Extreme(costs.params, costs.macs, exported.size_bytes, path)

        for position, device in enumerate(context.spec.budget.devices):
            context.progress.update(
                position / len(context.spec.budget.devices),
                detail=f"{device.name}: the narrowest widths",
            )
            smallest = extreme("smallest", SearchSpace(network.groups, device.granularity).smallest)
            missed = _missed_bounds(context, smallest, [device])
            if missed:
                largest = extreme("largest", network.full_widths)
                reach = f"the trained network of model {context.family!r}, which reaches"
                remedy = "or run a job of its own for this device, which trains another network."
                raise ImpossibleBudgetError(
                    _explain(context, missed[0], smallest, largest, reach, remedy)
                )


def _architecture(context: JobContext, width: float, depth: int) -> Architecture:
    return Architecture.from_dataset(context.task.dataset, context.family, width, depth)


def _smallest(context: JobContext, architecture: Architecture, folder: Path) -> _Extreme:
    network = architecture.network(seed=context.spec.seed)
    return _export(context, architecture, network.smallest_widths, folder / "smallest.onnx")


def _largest(context: JobContext, architecture: Architecture, folder: Path) -> _Extreme:
    network = architecture.network(seed=context.spec.seed)
    return _export(context, architecture, network.full_widths, folder / "largest.onnx")


def _export(
    context: JobContext, architecture: Architecture, widths: dict[str, int], path: Path
) -> _Extreme:
    network = architecture.network(seed=context.spec.seed)
    costs = network.costs(widths)
    dataset = context.task.dataset
    if is_zoo_name(context.family):
        # Its one architecture is exported again and again later: the template costs nothing more.
        template = context.backend.templates.get(architecture, dataset)
        exported = template.export(network.discretize(widths).eval(), path, widths=widths)
        return _Extreme(costs.params, costs.macs, exported.size_bytes, path)
    export_onnx(
        network.discretize(widths).eval(),
        path,
        input_shape=dataset.input_shape,
        mean=dataset.mean,
        std=dataset.std,
        target_statistics=dataset.target_statistics,
    )
    return _Extreme(costs.params, costs.macs, path.stat().st_size, path)


def _latency(
    context: JobContext, extreme: _Extreme, device: DeviceBudget, config: BenchmarkConfig = QUICK
) -> LatencySummary:
    return context.measure({"model": extreme.path}, device, config=config)["model"].summary


def _is_too_slow(context: JobContext, extreme: _Extreme, device: DeviceBudget) -> bool:
    bound = device.max_latency_ms
    if bound is None or _latency(context, extreme, device, _SCREENING).at_percentile < bound / 2:
        return False
    return _latency(context, extreme, device).ci[0] > bound


def _memory(context: JobContext, extreme: _Extreme, device: DeviceBudget) -> int:
    return measure_memory(context, {"model": extreme.path}, device)["model"]


def _missed_bounds(
    context: JobContext, smallest: _Extreme, devices: Sequence[DeviceBudget]
) -> list[tuple[DeviceBudget, str]]:
    """Devices and bounds that even the smallest network misses in every precision."""
    missed = []
    for device in devices:
        if device.name in context.unavailable_devices:
            continue
        with context.tolerate_failure(device, MeasurementError):
            missing: list[str] = []
            for precision in device.precisions:
                missing = _missing(
                    context, smallest.in_precision(precision, context.task.dataset), device
                )
                if not missing:
                    break
            missed += [(device, key) for key in missing]
    return missed


def _missing(context: JobContext, extreme: _Extreme, device: DeviceBudget) -> list[str]:
    missing = []
    for key in ("max_params", "max_macs", "max_size_bytes"):
        bound = getattr(device, key)
        if bound is not None and getattr(extreme, key.removeprefix("max_")) > bound:
            missing.append(key)
    if _is_too_slow(context, extreme, device):
        missing.append("max_latency_ms")
    if (
        device.max_memory_bytes is not None
        and _memory(context, extreme, device) > device.max_memory_bytes
    ):
        missing.append("max_memory_bytes")
    return missing


def _explain(
    context: JobContext,
    missed: tuple[DeviceBudget, str],
    smallest: _Extreme,
    largest: _Extreme,
    reach: str,
    remedy: str,
) -> str:
    device, key = missed
    bound = getattr(device, key)
    lows = [
        smallest.in_precision(precision, context.task.dataset) for precision in device.precisions
    ]
    highs = [
        largest.in_precision(precision, context.task.dataset) for precision in device.precisions
    ]
    if key == "max_latency_ms":
        low = min(_latency(context, extreme, device).at_percentile for extreme in lows)
        high = max(_latency(context, extreme, device).at_percentile for extreme in highs)
        reachable = f"{low:.3g} to {high:.3g} ms at p{device.percentile:g}"
    elif key == "max_memory_bytes":
        low = min(_memory(context, extreme, device) for extreme in lows)
        high = max(_memory(context, extreme, device) for extreme in highs)
        reachable = f"{low:,} to {high:,} bytes of memory beside the runtime"
    else:
        name = key.removeprefix("max_")
        low, high = (
            min(getattr(extreme, name) for extreme in lows),
            max(getattr(extreme, name) for extreme in highs),
        )
        reachable = f"{low:,} to {high:,} {name}".replace("size_bytes", "bytes")
    return (
        f"device {device.name!r}: {key} = {bound:g} cannot be met by {reach} from {reachable}: "
        f"give a bound in that range, {remedy}"
    )
