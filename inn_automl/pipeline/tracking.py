"""Tracking of a job in MLflow: an unreachable store is tried again, and then done without."""

from __future__ import annotations

import time
from dataclasses import asdict

from inn_automl.core.errors import CorruptFileError, InnAutomlError, StorageError
from inn_automl.core.result import Candidate, JobResult
from inn_automl.core.storage import write_json
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.exporting import point_id
from inn_automl.pipeline.records import MeasuredDevice, MeasuredDevices


def track(context: JobContext, result: JobResult, measured: MeasuredDevices) -> None:
    """Publishes a job to MLflow, and notes it where that is impossible."""
    from inn_automl.reporting.runs import publish  # MLflow takes a second to import

    candidates = {device.budget.name: _candidates(device) for device in measured.devices}
    tracking, started_at, pause_s = (
        context.tracking,
        time.monotonic(),
        context.tracking.first_pause_s,
    )
    while True:
        try:
            published = publish(
                result,
                context.folder,
                candidates=candidates,
                history=measured.trained.best.history,
                experiment=tracking.project,
                job_id=tracking.job_id,
                job_name=tracking.job_name,
            )
        except InnAutomlError as error:
            left_s = tracking.retry_deadline_s - (time.monotonic() - started_at)
            if left_s <= 0 or not _may_pass(error):
                context.progress.note(f"MLflow has no record of this job: {error}")
                return
            context.progress.update(0.7, detail=f"MLflow is tried again for {left_s:.0f} s")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, tracking.longest_pause_s)
        else:
            write_json(context.folder / "published.json", asdict(published))
            return


def _candidates(device: MeasuredDevice) -> list[Candidate]:
    """All that was evaluated, with the latency of what was measured."""
    known = {point_id(m.widths, m.precision): m.latency_ms for m in device.finalists}
    return [
        one.model_copy(update={"measured": known.get(point_id(one.widths, one.precision))})
        for one in device.searched.candidates
    ]


def _may_pass(error: InnAutomlError) -> bool:
    return isinstance(error, StorageError) and not isinstance(error, CorruptFileError)
