"""The pipeline's backend on Ray: training candidates are Ray Tune trials under ASHA, evaluations
are Ray tasks.

Each trial keeps its checkpoint in a folder of its own (`training.trial`), so that a trial whose
worker died is started again where its last checkpoint left it. Tasks are stateless and retried by
Ray. On a cluster of several machines the job's folder must be on storage that all of them reach.

ASHA: L. Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Read by Ray when it is imported. Every node must present the same token; without one here Ray
# writes one into the home folder, which a node started by hand would not find.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = (
    "1"  # it would turn Ctrl-C into a normal end of training
)
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from inn_automl.core.errors import BackendError, InnAutomlError, TrainingError
from inn_automl.data import Dataset
from inn_automl.evaluation.candidates import Evaluation
from inn_automl.integral import Widths
from inn_automl.pipeline.backend import Backend, Evaluator, Report, TrainingRequest, best_first
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuner, FineTuningRequest
from inn_automl.training.loop import EpochReport
from inn_automl.training.trial import Trained, run_trial, salvage_trial
from inn_automl_workers.distributed import MAX_FAILURES, failure, metrics, train_on_workers

logger = logging.getLogger(__name__)

FIRST_RUNG, REDUCTION = 25, 3
"""ASHA judges trials at 25 % and 75 % of their plan, and goes on with the better third."""
WATCHING_BYTES = 300 * 2**20
"""What a process needs that only watches its workers train. Tune wants some resource of every
trial.
"""
CONNECT_S = 10.0
TASKS_PER_CPU = 2
"""Batches are cut finer than the processors, so that a slow one does not leave the others idle."""


class RayBackend(Backend):
    """Joins the cluster at `address`, or starts one on this machine, when there is work; `close`
    leaves or ends it.

    Args:
        cpus: processors of a cluster that is started here; of any cluster, how many of them are
            used at a time.
        gpus: likewise.
    """

    def __init__(self, *, cpus: int = 1, gpus: int = 0, address: str | None = None) -> None:
        self._cpus, self._gpus, self._address = cpus, gpus, address
        self._references: dict[int, tuple[Any, ray.ObjectRef]] = {}
        self._networks: dict[Path, ray.ObjectRef] = {}

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        address = self._address
        try:
            if address is None:
                ray.init(
                    address="local",
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                )
            else:
                _ask_for(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises many kinds
            where = "on this machine" if address is None else f"at {address!r}"
            reason = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            raise BackendError(
                f"Ray cannot be reached {where} ({reason}): check --address, or use --backend "
                f"local."
            ) from error

    def train(self, task: TrainingRequest, report: Report) -> list[Trained]:
        done = [self._finished(task, index) for index in range(len(task.candidates))]
        open_trials = [index for index, trained in enumerate(done) if trained is None]
        failures: list[str] = []
        if open_trials:
            self._connect()
            failures = self._tune(task, open_trials, report)
        results = [
            done[i]
            or salvage_trial(c, task.family, task.dataset, task.trial_folder(i), seed=task.seed)
            for i, c in enumerate(task.candidates)
        ]
        return best_first(results, failures)

    def evaluate(
        self, trained: Trained, dataset: Dataset, batch: Sequence[Widths], *, split: str
    ) -> list[Evaluation]:
        if not batch:
            return []
        self._connect()
        dataset_ref, trained_ref = self._put(dataset), self._put_network(trained)
        # In a cluster that others use too, tasks that wait would start beyond this job's share of
        # processors.
        num_tasks = min(len(batch), self._cpus * (TASKS_PER_CPU if self._address is None else 1))
        pieces = [list(batch[i::num_tasks]) for i in range(num_tasks)]
        gpu_share = min(1.0, self._gpus / self._cpus) if self._gpus else 0
        remote = _evaluate_task.options(num_cpus=1, num_gpus=gpu_share)
        references = [
            remote.remote(
                trained_ref, str(trained.folder), dataset_ref, piece, split, bool(self._gpus)
            )
            for piece in pieces
        ]
        try:
            found = ray.get(references)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, InnAutomlError) else error
            raise BackendError(f"the evaluation of a candidate failed: {cause}") from error
        except ray.exceptions.RayError as error:
            raise BackendError(
                f"Ray lost the evaluation of a candidate {MAX_FAILURES} times ({error}): start "
                f"again."
            ) from error
        except KeyboardInterrupt:
            for reference in references:
                ray.cancel(reference, force=True)
            raise
        evaluations: list[Evaluation] = [
            found[i % num_tasks][i // num_tasks] for i in range(len(batch))
        ]
        return evaluations

    def fine_tune(
        self,
        trained: Trained,
        dataset: Dataset,
        tasks: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        if not tasks:
            return []
        self._connect()
        dataset_ref, trained_ref = self._put(dataset), self._put_network(trained)
        cpus = max(1, min(self._cpus // min(len(tasks), self._cpus), _largest_node()))
        gpu_share = min(1.0, self._gpus * cpus / self._cpus) if self._gpus else 0
        remote = _fine_tune_task.options(num_cpus=cpus, num_gpus=gpu_share)
        num_parallel = self._cpus // cpus
        waiting = list(enumerate(tasks))
        running: dict[ray.ObjectRef, int] = {}
        found: dict[int, FineTuningOutcome] = {}
        try:
            while waiting or running:
                # In a cluster that others use too, tasks that wait would start beyond this job's
                # share of processors.
                while waiting and len(running) < num_parallel:
                    index, task = waiting.pop(0)
                    reference = remote.remote(
                        trained_ref, dataset_ref, task, cpus, bool(self._gpus)
                    )
                    running[reference] = index
                (reference,), _ = ray.wait(list(running), num_returns=1)
                found[running.pop(reference)] = ray.get(reference)
                on_progress(len(found) / len(tasks))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, InnAutomlError) else error
            raise BackendError(f"a model could not be tuned: {cause}") from error
        except ray.exceptions.RayError as error:
            raise BackendError(
                f"Ray lost a tuning {MAX_FAILURES} times ({error}): start again."
            ) from error
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
        return [found[index] for index in range(len(tasks))]

    def fine_tuning_seconds(self, tasks: Sequence[FineTuningRequest]) -> float:
        left = [task.seconds for task in tasks if not task.is_done]
        return max(left) * -(-len(left) // self._cpus) if left else 0.0

    def close(self) -> None:
        ray.shutdown()

    def _finished(self, task: TrainingRequest, index: int) -> Trained | None:
        if not (task.trial_folder(index) / "outcome.json").exists():
            return None
        return salvage_trial(
            task.candidates[index],
            task.family,
            task.dataset,
            task.trial_folder(index),
            seed=task.seed,
        )

    def _tune(self, task: TrainingRequest, open_trials: list[int], report: Report) -> list[str]:
        num_workers = task.workers_per_trial
        available = min(self._cpus, self._gpus) if self._gpus else self._cpus
        num_parallel = max(1, min(len(open_trials), available // num_workers))
        num_processes = num_parallel * num_workers
        shared = {"task": task, "end_at": time.time() + task.seconds, "num_parallel": num_parallel}
        cpus = max(1, min(self._cpus // num_processes, _largest_node()))
        if num_workers > 1:
            gpus = self._gpus // num_processes
            trainable = tune.with_parameters(train_on_workers, cpus=cpus, gpus=gpus, **shared)
            resources: dict[str, float] = {"memory": WATCHING_BYTES}
        else:
            trainable = tune.with_parameters(_train_trial, **shared)
            resources = {"cpu": cpus, "gpu": self._gpus / num_processes}
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"trial": tune.grid_search(open_trials)},
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
                storage_path=str(task.folder.resolve()),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[_Forward(report)],
                verbose=0,
            ),
        )
        # Tune logs the traceback of every worker that dies, even if it goes on (the trial's
        # error.txt has it too), and prints tables to standard output, which is for results.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                results = tuner.fit()
        except tune.TuneError as error:
            raise BackendError(f"Ray Tune stopped ({error}): start again.") from error
        return [_reason(error) for error in results.errors]

    def _put(self, value: Any) -> ray.ObjectRef:
        """The value in Ray's object store; the same reference for the same object."""
        if id(value) not in self._references:
            self._references[id(value)] = (value, ray.put(value))
        return self._references[id(value)][1]

    def _put_network(self, trained: Trained) -> ray.ObjectRef:
        if trained.folder not in self._networks:
            self._networks[trained.folder] = ray.put(trained)
        return self._networks[trained.folder]


class _Forward(tune.Callback):
    """Hands every epoch of every trial to the pipeline."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks to restore experiments, which is not done here; a live display
        cannot be saved.
        """
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if "epoch_report" in result:
            self._report(result["trial"], EpochReport(**result["epoch_report"]))


def _train_trial(
    config: dict[str, Any], *, task: TrainingRequest, end_at: float, num_parallel: int
) -> None:
    """One trial, in a worker process."""
    index = config["trial"]

    def report(epoch: EpochReport) -> None:
        tune.report(metrics(index, epoch))

    remaining_s = end_at - time.time()
    if remaining_s <= 0 and not task.trial_folder(index).exists():
        return
    try:
        run_trial(
            task.candidates[index],
            task.family,
            task.dataset,
            task.trial_folder(index),
            seed=task.seed,
            seconds=task.planned_seconds(max(0.0, remaining_s), num_parallel),
            max_epochs=task.max_epochs,
            device="cuda" if task.gpus else "cpu",
            on_epoch=report,
        )
    except TrainingError as error:
        tune.report(failure(index, error))


_evaluators: dict[tuple[str, str], Evaluator] = {}


@ray.remote(max_retries=MAX_FAILURES)
def _evaluate_task(
    trained: Trained, folder: str, dataset: Dataset, batch: list[Widths], split: str, on_gpu: bool
) -> list[Evaluation]:
    """Accuracies of a batch of widths; the network is loaded once a worker process."""
    import torch

    torch.set_num_threads(1)
    key = (folder, split)
    if key not in _evaluators:
        _evaluators.clear()
        _evaluators[key] = Evaluator(trained, dataset, split, device="cuda" if on_gpu else "cpu")
    return [_evaluators[key](widths) for widths in batch]


@ray.remote(max_retries=MAX_FAILURES)
def _fine_tune_task(
    trained: Trained, dataset: Dataset, task: FineTuningRequest, cpus: int, on_gpu: bool
) -> FineTuningOutcome:
    """Tunes one model; it is kept in the job's folder, so that a task that is tried again finds
    it.
    """
    import torch

    torch.set_num_threads(cpus)
    return FineTuner(trained, dataset, device="cuda" if on_gpu else "cpu")(task)


def _ask_for(address: str) -> None:
    """Ray itself looks for minutes for a cluster that is not there.

    Raises:
        OSError: nothing listens at a HOST:PORT; other forms of an address are left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def _largest_node() -> int:
    """Processors of the cluster's largest node: a process that wants more would wait for ever."""
    return int(
        max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[-300:]
