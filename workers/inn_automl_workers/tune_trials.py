"""Training candidates as Ray Tune trials under ASHA.

ASHA: L. Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from inn_automl.core.errors import BackendError, TrainingError
from inn_automl.pipeline.backend import Report, TrainingRequest
from inn_automl.training.loop import EpochReport
from inn_automl.training.trial import run_trial
from inn_automl_workers.distributed import MAX_FAILURES, failure, metrics, train_on_workers
from inn_automl_workers.ray_cluster import largest_node_cpus

FIRST_RUNG, REDUCTION = 25, 3
"""ASHA judges trials at 25 % and 75 % of their plan, and continues with the better third."""
WATCHING_BYTES = 300 * 2**20
"""Memory of a process that only watches its workers train; Tune wants some resource of a trial."""


def run_trials(
    request: TrainingRequest, trials: list[int], report: Report, *, cpus: int, gpus: int
) -> list[str]:
    """Runs trials to their end, or until ASHA stops them.

    Args:
        trials: indices of the candidates that are not trained yet.
        report: called with a trial's index after each of its epochs.
        cpus: processors that are used at a time.
        gpus: likewise.

    Returns:
        Reasons of the trials that failed.

    Raises:
        BackendError: Tune stopped.
    """
    available = min(cpus, gpus) if gpus else cpus
    num_parallel = max(1, min(len(trials), available // request.workers_per_trial))
    tuner = tune.Tuner(
        _trainable(request, num_parallel, cpus=cpus, gpus=gpus),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            scheduler=ASHAScheduler(
                time_attr="percent",
                metric="score",
                mode="max",
                max_t=101,
                grace_period=FIRST_RUNG,
                reduction_factor=REDUCTION,
            ),
            max_concurrent_trials=num_parallel,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(request.folder.resolve()),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_Forward(report)],
            verbose=0,
        ),
    )
    # Tune logs the traceback of every worker that dies, even if it goes on (the trial's error.txt
    # has it too), and prints tables to standard output, which is for results.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            results = tuner.fit()
    except tune.TuneError as error:
        raise BackendError(f"Ray Tune stopped ({error}): start again.") from error
    return [" ".join(str(error).split())[-300:] for error in results.errors]


def _trainable(request: TrainingRequest, num_parallel: int, *, cpus: int, gpus: int) -> Any:
    """The function that trains one trial, with the resources that it holds."""
    num_processes = num_parallel * request.workers_per_trial
    shared = {
        "request": request,
        "end_at": time.time() + request.seconds,
        "num_parallel": num_parallel,
    }
    cpus_each = max(1, min(cpus // num_processes, largest_node_cpus()))
    resources: dict[str, float]
    if request.workers_per_trial > 1:
        gpus_each = gpus // num_processes
        train = tune.with_parameters(train_on_workers, cpus=cpus_each, gpus=gpus_each, **shared)
        resources = {"memory": WATCHING_BYTES}
    else:
        train = tune.with_parameters(_train_trial, **shared)
        resources = {"cpu": cpus_each, "gpu": gpus / num_processes}
    return tune.with_resources(train, resources)


class _Forward(tune.Callback):
    """Hands every epoch of every trial to the pipeline."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks to restore experiments, which is not done here, and a
        live display cannot be saved.
        """
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if "epoch_report" in result:
            self._report(result["trial"], EpochReport(**result["epoch_report"]))


def _train_trial(
    config: dict[str, Any], *, request: TrainingRequest, end_at: float, num_parallel: int
) -> None:
    """Trains one trial, in a worker process."""
    index = config["trial"]

    def report(epoch: EpochReport) -> None:
        tune.report(metrics(index, epoch))

    remaining_s = end_at - time.time()
    if remaining_s <= 0 and not request.trial_folder(index).exists():
        return
    try:
        run_trial(
            request.specs[index],
            request.model,
            request.task.to("cuda" if request.gpus else "cpu"),
            request.trial_folder(index),
            seed=request.seed,
            seconds=request.planned_seconds(max(0.0, remaining_s), num_parallel),
            max_epochs=request.max_epochs,
            on_epoch=report,
            start=request.start,
        )
    except TrainingError as error:
        tune.report(failure(index, error))
