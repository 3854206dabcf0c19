"""The main job: a dataset and a hardware budget in, measured Pareto fronts and downloadable models out.

Checking, training, calibrating, searching, measuring, publishing. Each stage leaves its result in the job's folder, so
that a job that was stopped at any moment goes on with the same call.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from inn_automl.data import load_dataset
from inn_automl.devices import latency
from inn_automl.errors import InputError
from inn_automl.models import build, default_family
from inn_automl.progress import Progress, SilentProgress
from inn_automl.result import JobResult
from inn_automl.spec import JobSpec
from inn_automl.stages.checking import fitting_candidates
from inn_automl.stages.job import Job, Tracking, claim_folder
from inn_automl.stages.measuring import make_template, measure_finalists
from inn_automl.stages.publishing import publish_job
from inn_automl.stages.searching import search_widths
from inn_automl.stages.training import train_network
from inn_automl.storage import read_json
from inn_automl.tracking.store import locate, prepare_early

if TYPE_CHECKING:
    from inn_automl.backend import Backend
    from inn_automl.devices.latency import Measure


def run_job(
    spec: JobSpec,
    out: Path,
    *,
    backend: Backend,
    measure: Measure = latency.measure,
    progress: Progress | None = None,
    tracking: Tracking | None = None,
) -> JobResult:
    """Runs a job to its end, from wherever an earlier call left it.

    Args:
        out: folder that everything is written to. New, empty, or of the same job.
        backend: who trains and evaluates.
        measure: who measures latency; this machine by default.
        tracking: how the job is published to MLflow.

    Raises:
        InputError: the dataset, the budget or the folder cannot be used; nothing was spent.
        TrainingError, MeasurementError, ExportError, BackendError, StorageError: a stage failed; what was found so far
            is kept.
    """
    progress = progress or SilentProgress()
    _check_agents(spec, measure)
    dataset = load_dataset(spec.dataset, seed=spec.seed)
    family = spec.family or default_family(dataset.kind, dataset.input_shape)
    build(family, dataset.input_shape, dataset.num_classes)  # refuses a family that does not fit the data
    out = out.absolute()  # workers have working directories of their own
    with claim_folder(out, spec, {"dataset_fingerprint": dataset.fingerprint, "family": family}):
        finished = out / "result.json"
        if finished.exists():
            return JobResult.model_validate(read_json(finished))
        for note in dataset.notes:
            progress.note(note)
        prepare_early(locate())  # MLflow's database takes seconds to create
        job = Job(spec, out, dataset, family, backend, measure, progress, tracking or Tracking())
        trials = train_network(job, fitting_candidates(job))
        template = functools.cache(lambda: make_template(job, trials[0]))
        searched = search_widths(job, trials[0], template)
        measured = measure_finalists(job, trials[0], searched, template)
        return publish_job(job, trials, searched, measured)


def _check_agents(spec: JobSpec, measure: Measure) -> None:
    """Refuses device agents where this machine is the one that measures."""
    agent = next((device.agent for device in spec.budget.devices if device.agent), None)
    if agent and measure is latency.measure:
        raise InputError(
            f"agent {agent!r} is reached through the service: use inn-automl submit, or leave `agent` out."
        )
