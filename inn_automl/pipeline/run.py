"""The main job: a dataset and a hardware budget in, measured Pareto fronts and downloadable models
out.

    check -> train -> check what was learned -> profile -> search -> measure -> fine_tune -> publish

Each stage leaves its result in the job's folder, so that a job that was stopped at any moment goes
on with the same call. A finished job can be extended to other devices and bounds, and its network
discretized to any widths: neither trains again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inn_automl.core.errors import InputError
from inn_automl.core.precision import DEFAULT
from inn_automl.core.progress import Progress, SilentProgress
from inn_automl.core.result import JobResult
from inn_automl.core.spec import JobSpec
from inn_automl.core.storage import read_json
from inn_automl.data import Dataset, load_dataset
from inn_automl.data.memory import check_memory
from inn_automl.latency import benchmark as latency
from inn_automl.pipeline.checking import check
from inn_automl.pipeline.context import JobContext, Tracking
from inn_automl.pipeline.discretizing import discretize_trained
from inn_automl.pipeline.extending import FinishedJob, reuse_training
from inn_automl.pipeline.fine_tuning import fine_tune
from inn_automl.pipeline.folder import RESULT_FILE, claim_folder, stage_seconds
from inn_automl.pipeline.job_clock import JobClock
from inn_automl.pipeline.learning import check_learned
from inn_automl.pipeline.measuring import measure as measure_finalists
from inn_automl.pipeline.planning import plan_trials
from inn_automl.pipeline.preparing import prepare, preprocessing_metadata
from inn_automl.pipeline.pretrained import use_pretrained
from inn_automl.pipeline.profiling import profile
from inn_automl.pipeline.publishing import publish
from inn_automl.pipeline.searching import search
from inn_automl.pipeline.training import train
from inn_automl.reporting.store import locate, prepare_early
from inn_automl.tasks import Task

if TYPE_CHECKING:
    from inn_automl.latency.benchmark import Measure
    from inn_automl.latency.store import MeasurementCache
    from inn_automl.pipeline.backend import Backend
    from inn_automl.pipeline.records import TrainedTrials


def run_job(
    spec: JobSpec,
    out: Path,
    *,
    backend: Backend,
    measure: Measure = latency.measure,
    progress: Progress | None = None,
    tracking: Tracking | None = None,
    measurement_cache: MeasurementCache | None = None,
) -> JobResult:
    """Runs a job to its end, from the stage that an earlier call reached.

    Args:
        out: folder that everything is written to. New, empty, or of the same job.
        backend: trains and evaluates.
        measure: measures latency; on this machine by default.
        tracking: settings of publishing the job to MLflow.
        measurement_cache: measurements of earlier jobs on the same devices, to start from and to
            add to; None: none.

    Raises:
        InputError: the dataset, the budget, the weights or the folder cannot be used; nothing was
            spent.
        NotLearnedError: the trained network is no better than no training; it stays in the folder.
        TrainingError, MeasurementError, ExportError, BackendError, StorageError: a stage failed;
            the results so far stay in the folder.
    """
    clock = JobClock(spec.budget.max_minutes)
    _check_devices(spec, measure)
    shown = progress or SilentProgress()
    prepared = prepare(spec, out, shown)
    check_memory(prepared.dataset, num_processes=1 + spec.budget.training.cpus)
    context = JobContext(
        spec,
        out.absolute(),  # workers have working directories of their own
        _task(prepared.dataset, spec),
        prepared.model,
        backend,
        measure,
        shown,
        tracking or Tracking(),
        measurement_cache,
        prepared.initial,
        prepared.choices,
        clock=clock,
    )
    with claim_folder(context.folder, spec, {**prepared.metadata, "extends": None}):
        if result := _finished(context):
            return result
        for note in (*prepared.choices, *prepared.notes):
            context.progress.note(note)
        if prepared.pretrained is not None:
            trained = use_pretrained(context, prepared.pretrained)
        else:
            trained = train(context, check(context, plan_trials(context)))
        return _search_and_publish(context, check_learned(context, trained))


def extend_job(
    spec: JobSpec,
    parent: Path,
    out: Path,
    *,
    backend: Backend,
    measure: Measure = latency.measure,
    progress: Progress | None = None,
    tracking: Tracking | None = None,
    measurement_cache: MeasurementCache | None = None,
) -> JobResult:
    """Runs another job on the network of a finished one: other devices, bounds or search budget,
    no training.

    Accuracies that the parent evaluated cost nothing again, a device that it profiled is not
    profiled again, and models that it exported are copied. A call after an interrupt continues
    from the stage that the earlier one reached.

    Args:
        spec: as the parent's but for devices and search; its dataset may lie elsewhere, its model
            may be left out.
        parent: folder of the finished job. It is only read, and not needed any more afterwards.
        out: folder that everything is written to. New, empty, or of the same extension.
        backend, measure, progress, tracking, measurement_cache: as for `run_job`.

    Raises:
        InputError: the parent is not finished or was trained on something else, or the budget or
            the folder cannot be used; nothing was spent.
        MeasurementError, ExportError, BackendError, StorageError: a stage failed; the
            results so far stay in the folder.
    """
    clock = JobClock(spec.budget.max_minutes)
    _check_devices(spec, measure)
    finished = FinishedJob.read(parent)
    finished.check_extension(spec)
    dataset = _dataset_of(finished, spec.dataset)
    context = JobContext(
        spec,
        out.absolute(),
        _task(dataset, spec),
        finished.family,
        backend,
        measure,
        progress or SilentProgress(),
        tracking or Tracking(),
        measurement_cache,
        choices=finished.choices,
        parent=finished.folder,
        clock=clock,
    )
    metadata = {
        "dataset_fingerprint": dataset.fingerprint,
        "model": finished.family,
        "preprocessing": preprocessing_metadata(dataset),
        "choices": list(finished.choices),
        "extends": finished.network_hash(),
    }
    with claim_folder(context.folder, spec, metadata):
        if result := _finished(context):
            return result
        return _search_and_publish(context, reuse_training(context, finished))


def discretize_job(
    folder: Path,
    widths: Mapping[str, int] | float,
    out: Path,
    *,
    dataset: str | None = None,
    precision: str = DEFAULT,
    fine_tune_seconds: float = 0.0,
) -> Path:
    """Writes a finished job's network at any widths as a verified bundle without latency.

    The job's folder is only read.

    Args:
        widths: channels of each coupled group, or one ratio of all of them.
        out: a path that ends in .zip, or the folder that ID.zip is written to.
        dataset: where the dataset lies now, if it is not where the job found it.
        precision: precision that the model computes in.
        fine_tune_seconds: how long the model is fine-tuned on the training samples first
            (`training.fine_tuning`); 0: it is not.

    Returns:
        The path of the bundle.

    Raises:
        WidthsError: widths that the network does not allow; says which are.
        UnknownNameError: there is no such precision.
        InputError: the job is not finished, the dataset is not the one that it was trained on, or
            `fine_tune_seconds` is out of range.
        ExportError, StorageError: the bundle could not be made.
    """
    finished = FinishedJob.read(folder)
    found = _dataset_of(finished, dataset or finished.spec.dataset)
    return discretize_trained(
        _task(found, finished.spec),
        finished.trials()[0],
        widths,
        out,
        precision=precision,
        fine_tune_seconds=fine_tune_seconds,
        optimism=finished.optimism(),
    )


def _task(dataset: Dataset, spec: JobSpec) -> Task:
    return Task.from_dataset(dataset, metric=spec.metric, class_weights=spec.class_weights)


def _dataset_of(finished: FinishedJob, source: str) -> Dataset:
    """The dataset at `source`, if it is the one that the job was trained on."""
    dataset = load_dataset(
        source,
        seed=finished.spec.seed,
        options=finished.spec.data,
        preprocessing=finished.preprocessing,
    )
    finished.check_dataset(source, dataset.fingerprint)
    return dataset


def _finished(context: JobContext) -> JobResult | None:
    """The result, where the job is finished; otherwise prepares for the work ahead."""
    path = context.folder / RESULT_FILE
    if path.exists():
        return JobResult.model_validate(read_json(path))
    context.clock.resume(sum(stage_seconds(context.folder).values()))
    for note in context.task.dataset.notes:
        context.progress.note(note)
    prepare_early(locate())  # MLflow's database takes seconds to create
    return None


def _search_and_publish(context: JobContext, trained: TrainedTrials) -> JobResult:
    profiled = profile(context, trained)
    searched = search(context, profiled)
    measured = measure_finalists(context, searched)
    fine_tuned = fine_tune(context, measured)
    return publish(context, fine_tuned)


def _check_devices(spec: JobSpec, measure: Measure) -> None:
    """Refuses device agents, and devices that this machine cannot be, where it measures itself."""
    if measure is not latency.measure:
        return
    agent = next((device.agent for device in spec.budget.devices if device.agent), None)
    if agent:
        raise InputError(
            f"agent {agent!r} is reached through the service: use inn-automl submit, or leave "
            f"`agent` out."
        )
    for device in spec.budget.devices:
        latency.check_device(device)
