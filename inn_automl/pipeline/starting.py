"""The start of a training from weights: the file that workers read, and its quality."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from inn_automl.evaluation.candidates import evaluate_module
from inn_automl.models import get_family
from inn_automl.models.architecture import Architecture
from inn_automl.models.initial_weights import InitialWeights
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.weights import START
from inn_automl.training.head import fit_head

_NUM_SAMPLES = 256
"""Training samples that a head is fitted to, and validation samples that it is scored on: a few
seconds of a network that trains for minutes."""


def write_start(context: JobContext) -> Path | None:
    """The file of the weights that training starts from, which every worker can read; tells the
    quality of the full width.

    Returns:
        None where training starts from nothing.

    Raises:
        StorageError: the file cannot be written.
    """
    initial = context.initial
    if initial is None:
        return None
    path = context.folder / START
    if not path.exists():
        value = _full_width_value(context, initial)
        origin = initial.origin.model_copy(update={"metric_value": value})
        dataclasses.replace(initial, origin=origin).save(path)
        head = ", with a new head fitted to a few training samples" if initial.new else ""
        metric = context.task.metric
        context.progress.note(
            f"before training, the full width has {metric.brief(value)} {metric.label}{head}"
        )
    return path


def _full_width_value(context: JobContext, initial: InitialWeights) -> float:
    """The metric value of the network on validation samples, as it is or with a new head."""
    task, budget = context.task, context.spec.budget.training
    threads = torch.get_num_threads()
    torch.set_num_threads(budget.cpus)
    try:
        depth = get_family(context.family).default_depth
        architecture = Architecture.from_dataset(task.dataset, context.family, 1.0, depth)
        network = architecture.network(seed=context.spec.seed, initial=initial).eval()
        if initial.new:
            fit_head(network, task.samples(task.dataset.train[:_NUM_SAMPLES]), _NUM_SAMPLES)
        validation = task.samples(task.dataset.validation[:_NUM_SAMPLES])
        return evaluate_module(network.module, validation).value
    finally:
        torch.set_num_threads(threads)
