"""Publishing: the front points are tested once, bundled and tracked; `result.json` is the last
thing to be written.
"""

from __future__ import annotations

from collections.abc import Sequence

from inn_automl.core.result import JobResult
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json, write_json
from inn_automl.evaluation.onnx_precision import evaluate_file
from inn_automl.export import write_elastic
from inn_automl.pipeline.bundling import bundle_model, bundle_network
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import ModelExporter
from inn_automl.pipeline.folder import RESULT_FILE
from inn_automl.pipeline.records import MeasuredDevices, MeasuredModel
from inn_automl.pipeline.results import ELASTIC, INN, job_result
from inn_automl.pipeline.tracking import track
from inn_automl.tasks import Score

TEST_SCORES = "measuring/test.json"


def publish(context: JobContext, measured: MeasuredDevices) -> JobResult:
    """Writes bundles and `result.json`, and publishes the job to MLflow.

    A tracking server that cannot be reached is noted and leaves the result whole.

    Raises:
        BackendError: the front points could not be evaluated on the test split.
        StorageError: a file could not be written.
    """
    with context.stage(Stage.PUBLISHING):
        exporter, points = measured.trained.exporter, list(measured.front_points.values())
        tested = _test(context, exporter, points)
        bundles = []
        for position, model in enumerate(points):
            context.progress.update(0.6 * position / len(points), detail=f"bundle {model.id}")
            bundles.append(bundle_model(context.folder, measured, model, tested[model.id]))
        result = job_result(context, measured, tested)
        bundle_network(context.folder / INN, context.task.dataset, exporter.trained)
        if not (context.folder / ELASTIC).exists():
            write_elastic(context.folder / ELASTIC, bundles, exporter.trained.folder)
        context.progress.update(0.7, detail="MLflow")
        track(context, result, measured)
        write_json(context.folder / RESULT_FILE, result.model_dump(mode="json"))
        return result


def _test(
    context: JobContext, exporter: ModelExporter, models: Sequence[MeasuredModel]
) -> dict[str, Score]:
    """Scores of front points on the test split, by id.

    They are kept, so that a resumed job does not touch that split again.
    """
    path = context.folder / TEST_SCORES
    known: dict[str, Score] = {}
    if context.reuse_from_parent(TEST_SCORES):
        known = {name: Score.from_dict(one) for name, one in read_json(path).items()}
    missing = [model for model in models if model.id not in known]
    floats = [model for model in missing if model.is_as_searched]
    found = context.backend.evaluate(
        exporter.trained, context.task, [model.widths for model in floats], split="test"
    )
    known |= {model.id: score for model, score in zip(floats, found, strict=True)}
    for model in missing:
        if not model.is_as_searched:  # the file itself: rounding and fine-tuning are part of it
            file = exporter.onnx_path(model.id)
            known[model.id] = evaluate_file(file, context.task, "test")
    write_json(path, {name: score.to_dict() for name, score in known.items()})
    return known
