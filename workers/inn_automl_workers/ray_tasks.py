"""Stateless work of a job as Ray tasks, which Ray retries on another worker."""

from __future__ import annotations

import ray

from inn_automl.core.sample_scores import SampleScores
from inn_automl.evaluation.onnx_precision import OnnxTemplates
from inn_automl.integral import Widths
from inn_automl.pipeline.backend import Evaluator
from inn_automl.tasks import Score, Task
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuner, FineTuningRequest
from inn_automl.training.trained import Trained
from inn_automl_workers.distributed import MAX_FAILURES

_evaluators: dict[tuple[str, str], Evaluator] = {}
_templates = OnnxTemplates()
"""The evaluator of this worker process, by folder of the network and split; one at most."""


@ray.remote(max_retries=MAX_FAILURES)
def evaluate_task(
    trained: Trained,
    folder: str,
    task: Task,
    batch: list[Widths],
    rivals: list[SampleScores | None],
    split: str,
    on_gpu: bool,
) -> list[Score]:
    """Evaluates a batch of widths; a worker process loads the network once."""
    import torch

    torch.set_num_threads(1)
    key = (folder, split)
    if key not in _evaluators:
        _evaluators.clear()
        _evaluators[key] = Evaluator.load(
            trained, task.to("cuda" if on_gpu else "cpu"), split, _templates
        )
    return _evaluators[key].batch(batch, rivals)


@ray.remote(max_retries=MAX_FAILURES)
def fine_tune_task(
    trained: Trained, task: Task, request: FineTuningRequest, cpus: int, on_gpu: bool
) -> FineTuningOutcome:
    """Fine-tunes one model and keeps it in the job's folder, where a retried task finds it."""
    import torch

    torch.set_num_threads(cpus)
    return FineTuner(trained, task.to("cuda" if on_gpu else "cpu"))(request)
