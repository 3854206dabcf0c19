"""Searches in this process: `search`, `extend`, `discretize`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inn_automl.core.data_options import DataOptions
from inn_automl.core.errors import SpecError
from inn_automl.core.home import home_folder
from inn_automl.core.precision import DEFAULT
from inn_automl.core.progress import Progress, SilentProgress, show_progress
from inn_automl.core.spec import Budget, JobSpec, load_budget, parse
from inn_automl.facade.backends import make_backend
from inn_automl.facade.result import Result
from inn_automl.latency import benchmark

if TYPE_CHECKING:
    from inn_automl.latency.benchmark import Measure
    from inn_automl.latency.store import MeasurementCache

BudgetLike = Budget | Mapping[str, Any] | str | Path


def search(
    dataset: str | Path,
    budget: BudgetLike,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    metric: str | None = None,
    class_weights: Literal["none", "balanced"] = "none",
    data: DataOptions | Mapping[str, Any] | None = None,
    augmentation: str | Sequence[str] = "auto",
    out: str | Path | None = None,
    seed: int = 0,
    backend: str = "local",
    address: str | None = None,
    progress: bool | Progress = True,
    measure: Measure | None = None,
) -> Result:
    """Trains one integral network and searches a Pareto front of its widths for each device.

    The same call resumes a search that was interrupted, and returns the result of a finished one.

    **Main arguments:**

    Args:
        dataset: the name of a built-in dataset, or a path or URL of one (see `load_dataset`).
        budget: devices with their bounds, and what training and search may cost: a `Budget`, a
            mapping of the same keys, or the path of a `budget.yaml`.
        model: the architecture to train: one of our families, `timm:NAME`, `torchvision:NAME`,
            or `package.module:factory`; None for the one that suits the data.
        weights: a file of weights (.safetensors, or .pth as `torch.save` wrote it), `"auto"` for
            those that the model's library offers, or `"none"`. Training starts from them; those
            of a trained network of our own families take its place.
        metric: what models are compared by: of a classification `accuracy`, `balanced_accuracy`,
            `macro_f1`, `auroc` or `recall:CLASS`; None for the task's own.
        class_weights: `balanced` lets all classes weigh the same in the loss, however many samples
            they have.
        data: how the dataset is read, such as `{"input_size": 224}`; None for what suits it.
        augmentation: how training varies samples: `auto` (by task and size), `none`, `light`,
            `strong`, or a list of transforms of images (see `JobSpec.augmentation`).
        out: the folder that everything is written to: new, empty, or of the same search. None for
            a folder under `~/.inn_automl/jobs` that is named after the arguments.

    **Other arguments:**

    Args:
        seed: of the splits, training and search.
        backend: who trains and evaluates: `local` (this process) or `ray`.
        address: a Ray cluster to join; None to start one here. For `ray` only.
        progress: whether to show progress on standard error, or what to report it to.
        measure: what measures latency, called as `inn_automl.measure` is; None for this machine.

    Returns:
        The measured fronts, with a bundle for each of their points.

    Raises:
        InputError: the dataset, the budget, the weights or the folder cannot be used; nothing was
            spent.
        NotLearnedError: the trained network is no better than no training; it is kept.
        TrainingError, MeasurementError, ExportError, BackendError, StorageError: a stage failed;
            what was found so far is kept.

    Example:
        >>> import inn_automl
        >>> result = inn_automl.search("mnist1d", "budget.yaml", out="result", progress=False)
        >>> result.devices
        ('laptop-1-thread',)
        >>> point = result.best(max_latency_ms=5.0)
        >>> result.bundle(point).suffix
        '.zip'
    """
    _set_thread_policy()
    from inn_automl.pipeline.run import run_job

    spec = _job_spec(
        dataset,
        budget,
        model=model,
        weights=None if weights is None else str(weights),
        metric=metric,
        class_weights=class_weights,
        data=dict(data) if isinstance(data, Mapping) else data or DataOptions(),
        augmentation=augmentation,
        seed=seed,
    )
    folder = Path(out) if out is not None else _default_folder(spec, None)
    workers = make_backend(backend, spec.budget.training, address)
    with closing(workers), _reporting(progress) as shown:
        record = run_job(
            spec,
            folder,
            backend=workers,
            progress=shown,
            measurement_cache=_measurement_cache(),
            measure=measure or benchmark.measure,
        )
    return Result(folder, record)


def extend(
    result: Result | str | Path,
    budget: BudgetLike,
    *,
    out: str | Path | None = None,
    dataset: str | Path | None = None,
    backend: str = "local",
    address: str | None = None,
    progress: bool | Progress = True,
    measure: Measure | None = None,
) -> Result:
    """Searches the network of a finished job for other devices or bounds; nothing is trained.

    **Main arguments:**

    Args:
        result: the finished job, or its folder. It is only read.
        budget: as for `search`; its `training` is left as it was.
        out: the folder of the extension. None for one under `~/.inn_automl/jobs`.

    **Other arguments:**

    Args:
        dataset: where the dataset lies now, if it was moved.
        backend, address, progress, measure: as for `search`.

    Raises:
        InputError: the job is not finished or was trained on something else, or the budget or the
            folder cannot be used; nothing was spent.
        MeasurementError, ExportError, BackendError, StorageError: a stage failed; what was found
            so far is kept.

    Example:
        >>> import inn_automl
        >>> budget = {
        ...     "devices": [{"name": "laptop-any-speed"}],
        ...     "search": {"max_evaluations": 8, "batch_size": 4, "max_measurements": 10},
        ... }
        >>> more = inn_automl.extend("result", budget, out="extended", progress=False)
        >>> more.devices
        ('laptop-any-speed',)
    """
    _set_thread_policy()
    from inn_automl.pipeline.extending import FinishedJob
    from inn_automl.pipeline.run import extend_job

    parent = _folder_of(result)
    before = FinishedJob.read(parent).spec
    asked = _budget(budget).model_copy(update={"training": before.budget.training})
    changes = {"budget": asked, "dataset": str(dataset or before.dataset)}
    spec = before.model_copy(update=changes)
    folder = Path(out) if out is not None else _default_folder(spec, parent.absolute())
    workers = make_backend(backend, spec.budget.training, address)
    with closing(workers), _reporting(progress) as shown:
        record = extend_job(
            spec,
            parent,
            folder,
            backend=workers,
            progress=shown,
            measurement_cache=_measurement_cache(),
            measure=measure or benchmark.measure,
        )
    return Result(folder, record)


def discretize(
    result: Result | str | Path,
    widths: Mapping[str, int] | float,
    out: str | Path,
    *,
    dataset: str | Path | None = None,
    precision: str = DEFAULT,
    fine_tune_seconds: float = 0.0,
) -> Path:
    """Samples the network of a finished job at any widths and writes a bundle, in seconds.

    **Main arguments:**

    Args:
        result: the finished job, or its folder. It is only read.
        widths: channels of each coupled group, or one fraction of all of them.
        out: a path that ends in .zip, or the folder that ID.zip is written to.

    **Other arguments:**

    Args:
        dataset: where the dataset lies now, if it was moved.
        precision: what the model computes in: `fp32`, `int8` or `fp16`.
        fine_tune_seconds: how long the model is fine-tuned first, at most 3600.

    Returns:
        The path of the bundle.

    Raises:
        WidthsError: widths that the network does not allow; the message says which it does.
        UnknownNameError: there is no such precision.
        InputError: the job is not finished, or the dataset is not the one it was trained on.
        ExportError, StorageError: the bundle could not be made.

    Example:
        >>> import inn_automl
        >>> inn_automl.discretize("result", 0.5, "half.zip").name
        'half.zip'
    """
    from inn_automl.pipeline.run import discretize_job

    return discretize_job(
        _folder_of(result),
        widths,
        Path(out),
        dataset=None if dataset is None else str(dataset),
        precision=precision,
        fine_tune_seconds=fine_tune_seconds,
    )


def _measurement_cache() -> MeasurementCache:
    """Latencies that earlier jobs measured on this machine."""
    from inn_automl.core.object_store import ObjectStore
    from inn_automl.latency.store import MeasurementCache

    return MeasurementCache(ObjectStore(str(home_folder() / "measurement-cache")))


def _set_thread_policy() -> None:
    # Read when torch is loaded. Threads that spin while they wait for each other stand still for
    # as long as another program has their core: on a busy machine two threads were ten times
    # slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _reporting(progress: bool | Progress) -> Any:
    if isinstance(progress, bool):
        return show_progress() if progress else nullcontext(SilentProgress())
    return nullcontext(progress)


def _job_spec(dataset: str | Path, budget: BudgetLike, **others: Any) -> JobSpec:
    values = {"dataset": str(dataset), "budget": _budget(budget), **others}
    return parse(JobSpec, values, where="the job")


def _budget(budget: BudgetLike) -> Budget:
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, Mapping):
        return parse(Budget, dict(budget), where="the budget")
    if isinstance(budget, (str, Path)):
        return load_budget(budget)
    raise SpecError(
        f"the budget is a {type(budget).__name__}: give an `inn_automl.Budget`, a mapping of the "
        "same keys, or the path of a budget.yaml."
    )


def _folder_of(result: Result | str | Path) -> Path:
    return result.folder if isinstance(result, Result) else Path(result)


def _default_folder(spec: JobSpec, origin: str | Path | None) -> Path:
    """A folder named after all that determines the result, so that the same call finds it again."""
    source = Path(spec.dataset)
    path = str(source.absolute()) if source.exists() else spec.dataset
    identity = f"{spec.model_copy(update={'dataset': path}).model_dump_json()} {origin or ''}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return home_folder() / "jobs" / f"{source.stem or 'job'}-{digest}"
