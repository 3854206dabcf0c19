"""Whether the trained network has learned anything: if not, the job stops before it is searched.

DIR/training/learned.json    what the full width reached, and the baseline
"""

from __future__ import annotations

from inn_automl.core.errors import NotLearnedError
from inn_automl.core.metric import ACCURACY, get_metric
from inn_automl.core.stage import Stage
from inn_automl.core.storage import load_or_make
from inn_automl.evaluation.candidates import evaluate_widths
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.folder import timed_stage
from inn_automl.pipeline.records import TrainedTrials
from inn_automl.tasks.objective import Learned

LEARNED = "training/learned.json"

UNEQUAL = 1.5
"""Above this fraction of the largest class times the number of classes, accuracy hides others."""

_REMEDIES = {
    "classification": "check the labels, give training.max_minutes more, start from pretrained "
    "weights (--weights), or use larger inputs",
    "regression": "check the targets, give training.max_minutes more, or start from pretrained "
    "weights (--weights)",
    "super-resolution": "check that the images are pairs, or give training.max_minutes more",
}
_UNTRAINED = {
    "classification": "what the largest class alone explains",
    "regression": "what predicting the mean explains",
    "super-resolution": "what bicubic upscaling reaches",
}


def check_learned(context: JobContext, trained: TrainedTrials) -> TrainedTrials:
    """Goes on with a network whose full width is better than no training.

    It is decided once a job, and the network is kept in any case.

    Raises:
        NotLearnedError: the full width is not above the baseline by its interval.
    """

    def compare() -> Learned:
        network = trained.best.network().to(context.task.device)
        with timed_stage(context.folder, Stage.TRAINING):
            score = evaluate_widths(network, network.full_widths, context.task)
            return context.task.objective.learned(score, context.task.dataset)

    learned = load_or_make(context.folder / LEARNED, Learned, compare)
    if not learned.is_above:
        raise NotLearnedError(_explain(context, learned))
    return trained


def _explain(context: JobContext, learned: Learned) -> str:
    metric, task = get_metric(learned.metric), context.task.dataset.task
    low, high = (metric.text(end) for end in learned.interval)
    remedy = _REMEDIES[task]
    if metric == ACCURACY and learned.baseline * context.task.dataset.num_classes > UNEQUAL:
        remedy += "; the largest class is far from the others, so that --class-weights balanced "
        remedy += "and --metric balanced_accuracy may fit better"
    return (
        f"the trained network has learned nothing that can be told: at full width its "
        f"{metric.label} on the validation split is {metric.text(learned.value)} (95 % interval "
        f"{low} to {high}), and {_UNTRAINED[task]} is {metric.text(learned.baseline)}. Nothing was "
        f"searched; the network is kept in {str(context.folder / 'training')!r}. Run a new job: "
        f"{remedy}."
    )
