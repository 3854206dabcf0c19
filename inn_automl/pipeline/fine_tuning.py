"""Tuning: the points of the final fronts are tuned for a stated time each, and the fronts are made
anew of them.

A tuned model has the shapes of the one it was made from, so that its latency is the one that was
measured. What became of each is kept in `DIR/tuning/`: a job that was stopped tunes only what is
left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inn_automl.core.progress import duration
from inn_automl.core.stage import Stage
from inn_automl.export import OnnxTemplate
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import export_model, onnx_path, point_id
from inn_automl.pipeline.layer_profile import profile_layers
from inn_automl.pipeline.measuring import Finalist, MeasuredDevice, make_front
from inn_automl.tasks import objective_of
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuningRequest, load_fine_tuned
from inn_automl.training.trial import Trained


def tune_fronts(
    job: JobContext,
    trained: Trained,
    measured: list[MeasuredDevice],
    template: Callable[[], OnnxTemplate],
) -> list[MeasuredDevice]:
    """The devices with their fronts made of tuned models, where these gained; as they are if
    nothing is to be tuned.

    Raises:
        BackendError: the workers could not do it; what was tuned so far is kept.
        ExportError, StorageError: a tuned model could not be exported.
    """
    if not job.spec.budget.search.fine_tune_seconds:
        return measured
    with job.stage(Stage.FINE_TUNING):
        points = {f.id: f for device in measured for f in device.front}
        tasks, outcomes = _tune(job, trained, list(points.values()))
        tuned = {
            name: _finalist(job, trained, finalist, tasks[key], outcomes[key], template)
            for name, finalist in points.items()
            for key in [point_id(finalist.widths)]
        }
        _tell(job, list(tuned.values()))
        return [_device(job, device, tuned) for device in measured]


def _tune(
    job: JobContext, trained: Trained, points: Sequence[Finalist]
) -> tuple[dict[str, FineTuningRequest], dict[str, FineTuningOutcome]]:
    """What was tuned and what came of it, by widths: a model in two precisions is tuned once."""
    seconds = job.spec.budget.search.fine_tune_seconds
    tasks: dict[str, FineTuningRequest] = {}
    for finalist in points:
        name = f"{point_id(finalist.widths)}-{seconds:g}s"
        job.reuse_from_parent(
            f"tuning/{name}.safetensors"
        )  # only where the parent kept the tuned model
        job.reuse_from_parent(f"tuning/{name}.json")
        tasks[point_id(finalist.widths)] = FineTuningRequest(
            finalist.widths, job.folder / "tuning" / name, seconds=seconds, seed=job.spec.seed
        )
    most_s = job.backend.fine_tuning_seconds(list(tasks.values()))
    job.progress.note(
        f"tuning {len(tasks)} points for {seconds:g} s each: {duration(most_s)}, and a few to begin"
    )
    outcomes = job.backend.fine_tune(
        trained,
        job.dataset,
        list(tasks.values()),
        on_progress=lambda done: job.progress.update(0.9 * done, detail=f"{len(tasks)} points"),
    )
    return tasks, dict(zip(tasks, outcomes, strict=True))


def _finalist(
    job: JobContext,
    trained: Trained,
    finalist: Finalist,
    task: FineTuningRequest,
    outcome: FineTuningOutcome,
    template: Callable[[], OnnxTemplate],
) -> Finalist:
    """The tuned model in the place of a finalist, where tuning kept it; else the finalist."""
    if not outcome.is_kept:
        return finalist
    name = point_id(finalist.widths, finalist.precision, fine_tune_seconds=task.seconds)
    make = functools.partial(load_fine_tuned, trained, task)
    model = export_model(job, name, make, finalist.widths, finalist.precision, template)
    return replace(
        finalist,
        id=name,
        metric_value=outcome.metric_value_after
        if model.metric_value is None
        else model.metric_value,
        size_bytes=model.size_bytes,
        difference=model.difference,
        num_verified=model.num_verified,
        agreement=model.agreement,
        tuning=outcome.to_result(finalist.metric_value),
    )


def _device(
    job: JobContext, device: MeasuredDevice, tuned: Mapping[str, Finalist]
) -> MeasuredDevice:
    # What was not on the front stays off it: its metric value, which nothing has tested anew, flatters
    # it.
    finalists = [tuned[f.id] for f in device.front]
    metric = objective_of(job.dataset).metric
    made = replace(
        make_front(device.budget, finalists, device.environment, metric), finalists=device.finalists
    )
    before = {f.id: (f.widths, f.precision) for f in device.finalists}.get(device.recommended or "")
    after = next(((f.widths, f.precision) for f in finalists if f.id == made.recommended), None)
    if made.recommended is None or after == before:  # layers of the same shapes take the same time
        return replace(made, layers=device.layers)
    return replace(
        made,
        layers=profile_layers(job, made.budget, made.recommended, onnx_path(job, made.recommended)),
    )


def _tell(job: JobContext, points: Sequence[Finalist]) -> None:
    gains = [f.metric_value - f.tuning.metric_value_before for f in points if f.tuning]
    if not gains:
        job.progress.note(
            f"tuning lowered the validation loss of none of {len(points)} points: they stay as "
            f"found"
        )
        return
    metric = objective_of(job.dataset).metric
    unit = "percentage points" if metric.unit == "%" else metric.unit
    gain = f"{metric.shown(sum(gains) / len(gains)):+.{metric.decimals}f} {unit}".rstrip()
    job.progress.note(
        f"tuning lowered the validation loss of {len(gains)} of {len(points)} points, whose "
        f"{metric.label} there went "
        f"by {gain} on average"
    )
