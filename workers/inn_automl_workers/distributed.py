"""One Ray Tune trial on several workers: Ray Train starts them, on one node or several, and they
train together.

The trial's own process only watches and holds no processor, so that the workers of all concurrent
trials fit. A worker or node that dies makes all of the trial's workers start again from its last
checkpoint. Workers speak gloo on CPUs and NCCL on GPUs (the latter is untested).
"""

from __future__ import annotations

import time
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from inn_automl.core.errors import TrainingError
from inn_automl.pipeline.backend import TrainingRequest
from inn_automl.training.loop import EpochReport
from inn_automl.training.trial import run_trial

MAX_FAILURES = 3
"""Number of times that a trial or task is started again after its worker died."""


def train_on_workers(
    config: dict[str, Any],
    *,
    request: TrainingRequest,
    end_at: float,
    num_parallel: int,
    cpus: int,
    gpus: int,
) -> None:
    """A Tune trial: starts the trial's workers and hands the first one's reports to Tune.

    Args:
        cpus: of each worker.
        gpus: likewise.
    """
    index = config["trial"]
    if time.time() >= end_at and not request.trial_folder(index).exists():
        return
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={
            "trial": index,
            "request": request,
            "end_at": end_at,
            "num_parallel": num_parallel,
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=request.workers_per_trial,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
            placement_strategy="SPREAD",  # workers of one machine share its memory bandwidth
        ),
        run_config=ray.train.RunConfig(
            name=f"trial-{index}",
            storage_path=str((request.folder / "train").resolve()),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        ),
    )
    trainer.fit()


def _train_on_worker(config: dict[str, Any]) -> None:
    """Trains on one of the trial's workers."""
    index, request = config["trial"], config["request"]

    def report(epoch: EpochReport) -> None:
        ray.train.report(metrics(index, epoch))

    try:
        run_trial(
            request.specs[index],
            request.model,
            request.task.to("cuda" if request.gpus else "cpu"),
            request.trial_folder(index),
            seed=request.seed,
            seconds=request.planned_seconds(
                max(0.0, config["end_at"] - time.time()), config["num_parallel"]
            ),
            max_epochs=request.max_epochs,
            on_epoch=report,
            start=request.start,
        )
    except TrainingError as error:
        ray.train.report(failure(index, error))


def metrics(index: int, epoch: EpochReport) -> dict[str, Any]:
    """A trial's report to Tune after an epoch."""
    percent = int(100 * epoch.progress)
    return {"trial": index, "score": epoch.score, "percent": percent, "epoch_report": vars(epoch)}


def failure(index: int, error: TrainingError) -> dict[str, Any]:
    """A diverged trial's report to Tune: it would diverge again, so it is no error to retry."""
    return {"trial": index, "score": float("-inf"), "percent": 100, "failed": str(error)}
