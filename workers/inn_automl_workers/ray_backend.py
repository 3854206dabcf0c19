"""The pipeline's backend on Ray: training candidates are Ray Tune trials under ASHA, evaluations
and fine-tunings are Ray tasks.

Each trial keeps its checkpoint in a folder of its own (`inn_automl.training.trial`): after its
worker died, it continues from there. Tasks are stateless and retried by Ray. On a cluster of
several machines the job's folder must be on storage that all of them reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from inn_automl.core.errors import BackendError, InnAutomlError
from inn_automl.core.sample_scores import SampleScores
from inn_automl.integral import Widths
from inn_automl.pipeline.backend import Backend, Report, TrainingRequest, best_first
from inn_automl.tasks import Score, Task
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuningRequest
from inn_automl.training.trained import OUTCOME, Trained
from inn_automl.training.trial import salvage_trial
from inn_automl_workers.distributed import MAX_FAILURES
from inn_automl_workers.ray_cluster import connect, largest_node_cpus
from inn_automl_workers.ray_tasks import evaluate_task, fine_tune_task
from inn_automl_workers.tune_trials import run_trials

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

    def train(self, request: TrainingRequest, report: Report) -> list[Trained]:
        done = [self._finished(request, index) for index in range(len(request.specs))]
        open_trials = [index for index, trained in enumerate(done) if trained is None]
        failures: list[str] = []
        if open_trials:
            self._connect()
            failures = run_trials(request, open_trials, report, cpus=self._cpus, gpus=self._gpus)
        results = [trained or _salvage(request, index) for index, trained in enumerate(done)]
        return best_first(results, failures)

    def evaluate(
        self,
        trained: Trained,
        task: Task,
        batch: Sequence[Widths],
        *,
        split: str,
        rivals: Sequence[SampleScores | None] = (),
    ) -> list[Score]:
        if not batch:
            return []
        self._connect()
        task_ref, trained_ref = self._put(task), self._put_network(trained)
        # In a cluster that others use too, tasks that wait would start beyond the processors of
        # this job.
        num_tasks = min(len(batch), self._cpus * (TASKS_PER_CPU if self._address is None else 1))
        each = list(rivals) or [None] * len(batch)
        pieces = [(list(batch[i::num_tasks]), each[i::num_tasks]) for i in range(num_tasks)]
        remote = evaluate_task.options(num_cpus=1, num_gpus=self._gpus_for(1))
        references = [
            remote.remote(
                trained_ref, str(trained.folder), task_ref, points, others, split, bool(self._gpus)
            )
            for points, others in pieces
        ]
        try:
            with _failures_explained("the evaluation of a candidate"):
                found = ray.get(references)
        except KeyboardInterrupt:
            for reference in references:
                ray.cancel(reference, force=True)
            raise
        evaluations: list[Score] = [found[i % num_tasks][i // num_tasks] for i in range(len(batch))]
        return evaluations

    def fine_tune(
        self,
        trained: Trained,
        task: Task,
        requests: Sequence[FineTuningRequest],
        *,
        on_progress: Callable[[float], None],
    ) -> list[FineTuningOutcome]:
        if not requests:
            return []
        self._connect()
        task_ref, trained_ref = self._put(task), self._put_network(trained)
        cpus = max(1, min(self._cpus // min(len(requests), self._cpus), largest_node_cpus()))
        remote = fine_tune_task.options(num_cpus=cpus, num_gpus=self._gpus_for(cpus))
        num_parallel = self._cpus // cpus
        waiting = list(enumerate(requests))
        running: dict[ray.ObjectRef, int] = {}
        found: dict[int, FineTuningOutcome] = {}
        try:
            with _failures_explained("the fine-tuning of a model"):
                while waiting or running:
                    # As in `evaluate`: no task waits in the cluster.
                    while waiting and len(running) < num_parallel:
                        index, request = waiting.pop(0)
                        reference = remote.remote(
                            trained_ref, task_ref, request, cpus, bool(self._gpus)
                        )
                        running[reference] = index
                    (reference,), _ = ray.wait(list(running), num_returns=1)
                    found[running.pop(reference)] = ray.get(reference)
                    on_progress(len(found) / len(requests))
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
        return [found[index] for index in range(len(requests))]

    def fine_tuning_seconds(self, requests: Sequence[FineTuningRequest]) -> float:
        left = [request.seconds for request in requests if not request.is_done]
        return max(left) * -(-len(left) // self._cpus) if left else 0.0

    def close(self) -> None:
        ray.shutdown()

    def _connect(self) -> None:
        connect(self._address, cpus=self._cpus, gpus=self._gpus)

    def _gpus_for(self, cpus: int) -> float:
        """GPUs, or a fraction of one, that go with so many processors."""
        return min(1.0, self._gpus * cpus / self._cpus) if self._gpus else 0.0

    def _finished(self, request: TrainingRequest, index: int) -> Trained | None:
        folder = request.trial_folder(index)
        if not (folder / OUTCOME).exists():
            return None
        return _salvage(request, index)

    def _put(self, value: Any) -> ray.ObjectRef:
        """The value in Ray's object store; the same reference for the same object."""
        if id(value) not in self._references:
            self._references[id(value)] = (value, ray.put(value))
        return self._references[id(value)][1]

    def _put_network(self, trained: Trained) -> ray.ObjectRef:
        if trained.folder not in self._networks:
            self._networks[trained.folder] = ray.put(trained)
        return self._networks[trained.folder]


def _salvage(request: TrainingRequest, index: int) -> Trained | None:
    return salvage_trial(
        request.specs[index],
        request.model,
        request.task,
        request.trial_folder(index),
        seed=request.seed,
        start=request.start,
    )


@contextmanager
def _failures_explained(work: str) -> Iterator[None]:
    """Makes errors of Ray a `BackendError` that names the work."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, InnAutomlError) else error
        raise BackendError(f"{work} failed: {cause}") from error
    except ray.exceptions.RayError as error:
        raise BackendError(
            f"Ray lost {work} {MAX_FAILURES} times ({error}): start again."
        ) from error
