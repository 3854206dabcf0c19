"""Before anything is spent: can the budget be met at all?

The smallest network of the family bounds what can be reached. Parameters and multiply-accumulates
are counted; latency, memory and size are measured on the exported smallest network.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from inn_automl.core.errors import ImpossibleBudgetError, MeasurementError
from inn_automl.core.precision import DEFAULT
from inn_automl.core.result import LatencySummary
from inn_automl.core.spec import DeviceBudget
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.data import Dataset
from inn_automl.evaluation.onnx_precision import convert_file
from inn_automl.export import OnnxTemplate, export_onnx
from inn_automl.latency.config import QUICK, BenchmarkConfig
from inn_automl.models import get_family
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.memory import measure_memory
from inn_automl.search.space import SearchSpace
from inn_automl.training.recipe import Recipe, TrialSpec, trial_specs
from inn_automl.training.trial import Architecture, Trained

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


def fitting_candidates(job: JobContext) -> list[TrialSpec]:
    """The training candidates whose smallest network meets every bound of every device; decided
    once a job.

    An architecture that is too large even at its smallest widths is replaced by the family's
    smallest one.

    Raises:
        MeasurementError: no device could be measured.
        ImpossibleBudgetError: even the smallest network of the family misses a bound; says the
            range that is possible.
    """
    path = job.folder / "training" / "candidates.json"
    if path.exists():
        return [
            TrialSpec(**{**one, "recipe": Recipe.from_dict(one["recipe"])})
            for one in read_json(path)
        ]
    with job.stage(Stage.CHECKING):
        candidates = _fitting(job)
    write_json(path, [dataclasses.asdict(candidate) for candidate in candidates])
    return candidates


def _fitting(job: JobContext) -> list[TrialSpec]:
    budget = job.spec.budget
    dataset, num_trials = job.dataset, budget.training.trials
    candidates = trial_specs(
        job.family, len(dataset.train), num_trials, seed=job.spec.seed, task=dataset.task
    )
    family = get_family(job.family)
    least = _architecture(job, min(family.width_multipliers), min(family.depths))
    most = _architecture(job, max(family.width_multipliers), max(family.depths))
    architectures = {_architecture(job, c.width, c.depth): None for c in candidates}
    with tempfile.TemporaryDirectory() as folder:
        fits = {}
        for position, architecture in enumerate(architectures):
            job.progress.update(
                position / len(architectures), detail="the smallest network on each device"
            )
            fits[architecture] = not _misses(
                job, _smallest(job, architecture, Path(folder)), budget.devices
            )
        if all(fits.values()):
            return candidates
        if not any(fits.values()):
            smallest = _smallest(job, least, Path(folder))
            misses = _misses(job, smallest, budget.devices)
            if misses:
                reach = f"family {job.family!r}, whose networks for this dataset reach"
                largest = _largest(job, most, Path(folder))
                raise ImpossibleBudgetError(
                    _explain(job, *misses[0], smallest, largest, reach, "or another --model.")
                )
    fitting = []
    for candidate in candidates:
        if fits[_architecture(job, candidate.width, candidate.depth)]:
            fitting.append(candidate)
        else:
            job.progress.note(
                f"width {candidate.width:g}, depth {candidate.depth} of {job.family} misses the "
                f"budget at its smallest "
                f"widths: width {least.width:g}, depth {least.depth} is trained instead"
            )
            fitting.append(dataclasses.replace(candidate, width=least.width, depth=least.depth))
    return fitting


def check_trained(job: JobContext, trained: Trained, template: Callable[[], OnnxTemplate]) -> None:
    """Whether a network that is trained already can meet every bound of every device.

    Raises:
        ImpossibleBudgetError: even its narrowest widths miss a bound; says the range that is
            possible.
    """
    network = trained.network()
    with tempfile.TemporaryDirectory() as folder:

        def extreme(name: str, widths: dict[str, int]) -> _Extreme:
            path, costs = Path(folder) / f"{name}.onnx", network.costs(widths)
            size_bytes = (
                template().export(network.discretize(widths).eval(), path, widths=widths).size_bytes
            )
            return _Extreme(costs.params, costs.macs, size_bytes, path)

        for position, device in enumerate(job.spec.budget.devices):
            job.progress.update(
                position / len(job.spec.budget.devices),
                detail=f"{device.name}: the narrowest widths",
            )
            smallest = extreme("smallest", SearchSpace(network.groups, device.granularity).smallest)
            misses = _misses(job, smallest, [device])
            if misses:
                largest = extreme("largest", network.full_widths)
                reach = f"the trained network of family {job.family!r}, which reaches"
                remedy = "or run a job of its own for this device, which trains another network."
                raise ImpossibleBudgetError(
                    _explain(job, *misses[0], smallest, largest, reach, remedy)
                )


def _architecture(job: JobContext, width: float, depth: int) -> Architecture:
    return Architecture.of(job.dataset, job.family, width, depth)


def _smallest(job: JobContext, architecture: Architecture, folder: Path) -> _Extreme:
    network = architecture.network(seed=job.spec.seed)
    return _export(job, architecture, network.smallest_widths, folder / "smallest.onnx")


def _largest(job: JobContext, architecture: Architecture, folder: Path) -> _Extreme:
    network = architecture.network(seed=job.spec.seed)
    return _export(job, architecture, network.full_widths, folder / "largest.onnx")


def _export(
    job: JobContext, architecture: Architecture, widths: dict[str, int], path: Path
) -> _Extreme:
    network = architecture.network(seed=job.spec.seed)
    costs = network.costs(widths)
    dataset = job.dataset
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
    job: JobContext, extreme: _Extreme, device: DeviceBudget, config: BenchmarkConfig = QUICK
) -> LatencySummary:
    return job.measure({"model": extreme.path}, device, config=config)["model"].summary


def _is_too_slow(job: JobContext, extreme: _Extreme, device: DeviceBudget) -> bool:
    bound = device.max_latency_ms
    if bound is None or _latency(job, extreme, device, _SCREENING).at_percentile < bound / 2:
        return False
    return _latency(job, extreme, device).ci[0] > bound


def _memory(job: JobContext, extreme: _Extreme, device: DeviceBudget) -> int:
    return measure_memory(job, {"model": extreme.path}, device)["model"]


def _misses(
    job: JobContext, smallest: _Extreme, devices: Sequence[DeviceBudget]
) -> list[tuple[DeviceBudget, str]]:
    """Devices and bounds that even the smallest network is certain to miss, whatever it computes
    in.
    """
    missed = []
    for device in devices:
        if device.name in job.unavailable_devices:
            continue
        with job.tolerate_failure(device, MeasurementError):
            missing: list[str] = []
            for precision in device.precisions:
                missing = _missing(job, smallest.in_precision(precision, job.dataset), device)
                if not missing:
                    break
            missed += [(device, key) for key in missing]
    return missed


def _missing(job: JobContext, extreme: _Extreme, device: DeviceBudget) -> list[str]:
    missing = []
    for key in ("max_params", "max_macs", "max_size_bytes"):
        bound = getattr(device, key)
        if bound is not None and getattr(extreme, key.removeprefix("max_")) > bound:
            missing.append(key)
    if _is_too_slow(job, extreme, device):
        missing.append("max_latency_ms")
    if (
        device.max_memory_bytes is not None
        and _memory(job, extreme, device) > device.max_memory_bytes
    ):
        missing.append("max_memory_bytes")
    return missing


def _explain(
    job: JobContext,
    device: DeviceBudget,
    key: str,
    smallest: _Extreme,
    largest: _Extreme,
    reach: str,
    remedy: str,
) -> str:
    bound = getattr(device, key)
    lows = [smallest.in_precision(precision, job.dataset) for precision in device.precisions]
    highs = [largest.in_precision(precision, job.dataset) for precision in device.precisions]
    if key == "max_latency_ms":
        low = min(_latency(job, extreme, device).at_percentile for extreme in lows)
        high = max(_latency(job, extreme, device).at_percentile for extreme in highs)
        reachable = f"{low:.3g} to {high:.3g} ms at p{device.percentile:g}"
    elif key == "max_memory_bytes":
        low = min(_memory(job, extreme, device) for extreme in lows)
        high = max(_memory(job, extreme, device) for extreme in highs)
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
