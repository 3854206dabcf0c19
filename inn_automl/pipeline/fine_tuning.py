"""Fine-tuning: the front points are fine-tuned for a stated time each, and make new fronts.

A fine-tuned model has the shapes of the one it was made from, so its latency is the one that was
measured. The outcomes are kept in `DIR/fine_tuning/`: a job that was stopped fine-tunes only what
is left.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from inn_automl.core.metric import Metric
from inn_automl.core.progress import duration
from inn_automl.core.stage import Stage
from inn_automl.evaluation.onnx_precision import evaluate_file
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import ModelExporter, point_id
from inn_automl.pipeline.layer_profile import with_layers
from inn_automl.pipeline.measuring import make_front, with_values_of_file
from inn_automl.pipeline.records import MeasuredDevice, MeasuredDevices, MeasuredModel
from inn_automl.training.fine_tuning import FineTuningOutcome
from inn_automl.training.fine_tuning_request import FineTuningRequest, load_fine_tuned
from inn_automl.training.trained import Trained


@dataclass(frozen=True)
class _FineTuned:
    """One model of the network, fine-tuned for all precisions that are on a front."""

    request: FineTuningRequest
    outcome: FineTuningOutcome


def fine_tune(context: JobContext, measured: MeasuredDevices) -> MeasuredDevices:
    """Makes the fronts of fine-tuned models, where these gained; changes nothing without a budget.

    Raises:
        BackendError: the workers could not do it; what was fine-tuned so far is kept.
        ExportError, StorageError: a fine-tuned model could not be exported.
    """
    if not context.spec.budget.search.fine_tune_seconds:
        return measured
    with context.stage(Stage.FINE_TUNING):
        exporter, points = measured.trained.exporter, measured.front_points
        by_widths = _run(context, exporter.trained, list(points.values()))
        replacements = {
            name: _replacement(
                exporter, model, by_widths[point_id(model.widths)], measured.optimism
            )
            for name, model in points.items()
        }
        context.progress.note(_gain(list(replacements.values()), context.task.metric))
        devices = [_device(context, device, replacements, exporter) for device in measured.devices]
        return MeasuredDevices(measured.trained, tuple(devices), measured.optimism)


def _run(
    context: JobContext, trained: Trained, points: Sequence[MeasuredModel]
) -> dict[str, _FineTuned]:
    """Fine-tunes each of the widths once; the result is by their id."""
    seconds = context.spec.budget.search.fine_tune_seconds
    requests: dict[str, FineTuningRequest] = {}
    for model in points:
        name = f"{point_id(model.widths)}-{seconds:g}s"
        # The weights are there only if the parent kept the fine-tuned model.
        context.reuse_from_parent(f"fine_tuning/{name}.safetensors")
        context.reuse_from_parent(f"fine_tuning/{name}.json")
        requests[point_id(model.widths)] = FineTuningRequest(
            model.widths,
            context.folder / "fine_tuning" / name,
            seconds=seconds,
            seed=context.spec.seed,
        )
    most_s = context.backend.fine_tuning_seconds(list(requests.values()))
    context.progress.note(
        f"fine-tuning {len(requests)} points for {seconds:g} s each: {duration(most_s)}, and a few "
        "to begin"
    )
    outcomes = context.backend.fine_tune(
        trained,
        context.task,
        list(requests.values()),
        on_progress=lambda done: context.progress.update(
            0.9 * done, detail=f"{len(requests)} points"
        ),
    )
    return {
        name: _FineTuned(requests[name], outcome)
        for name, outcome in zip(requests, outcomes, strict=True)
    }


def _replacement(
    exporter: ModelExporter, model: MeasuredModel, tuned: _FineTuned, optimism: float
) -> MeasuredModel:
    """The fine-tuned model if it was kept; else the model as it is.

    Args:
        optimism: is taken off its metric value.
    """
    outcome, request = tuned.outcome, tuned.request
    if not outcome.is_kept:
        return model
    exported = exporter.export(
        point_id(model.widths, model.precision, fine_tune_seconds=request.seconds),
        functools.partial(load_fine_tuned, exporter.trained, request),
        model.widths,
        model.precision,
    )
    score = evaluate_file(exporter.onnx_path(exported.id), exporter.task, "validation")
    tuned_model = replace(
        model,
        exported=exported,
        metric_value=outcome.metric_value_after - optimism,
        loss=score.loss,
        samples=None if score.samples is None else score.samples.kept,
        fine_tuning=outcome.to_result(model.metric_value),
    )
    return with_values_of_file(tuned_model, optimism)


def _device(
    context: JobContext,
    device: MeasuredDevice,
    replacements: Mapping[str, MeasuredModel],
    exporter: ModelExporter,
) -> MeasuredDevice:
    # What was not on the front stays off it: its metric value, which nothing has tested again,
    # flatters it.
    models = [
        replace(
            model,
            exported=replacements[model.id].exported,
            metric_value=replacements[model.id].metric_value,
            loss=replacements[model.id].loss,
            samples=replacements[model.id].samples,
            fine_tuning=replacements[model.id].fine_tuning,
        )
        for model in device.front
    ]
    made = make_front(device.searched, models, device.environment, context.task.metric)
    made = replace(made, finalists=device.finalists)
    before, after = device.recommended_model, made.recommended_model
    if after is None or (before is not None and after.has_shapes_of(before)):
        return replace(made, layers=device.layers)  # the same shapes take the same time
    return with_layers(context, made, exporter.onnx_path)


def _gain(points: Sequence[MeasuredModel], metric: Metric) -> str:
    """The gain of fine-tuning, as a note."""
    gains = [p.metric_value - p.fine_tuning.metric_value_before for p in points if p.fine_tuning]
    if not gains:
        return (
            f"fine-tuning lowered the validation loss of none of {len(points)} points: they stay "
            "as found"
        )
    unit = "percentage points" if metric.unit == "%" else metric.unit
    gain = f"{metric.shown(sum(gains) / len(gains)):+.{metric.decimals}f} {unit}".rstrip()
    return (
        f"fine-tuning lowered the validation loss of {len(gains)} of {len(points)} points, whose "
        f"{metric.label} there went by {gain} on average"
    )
