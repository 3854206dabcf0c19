"""Extending: a finished job's network, its accuracies, latency measurements and models serve other devices
and bounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inn_automl.core.errors import CorruptFileError, InputError
from inn_automl.core.spec import JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json
from inn_automl.export import OnnxTemplate
from inn_automl.integral.checkpoint import TENSORS
from inn_automl.pipeline.checking import check_trained
from inn_automl.pipeline.context import JOB_FILE, JobContext, read_job_file
from inn_automl.pipeline.training import DONE
from inn_automl.search.evaluations import inherit_evaluations
from inn_automl.training.trial import Trained, load_trial

EVALUATIONS = "search/state/evaluations.jsonl"


class FinishedJob:
    """The folder of a finished job; it is only read.

    Attributes:
        spec: what it was asked for.
        family: the family that it trained.
        fingerprint: of its dataset.

    Raises:
        InputError: there is no finished job in the folder.
        JobDirectoryError: the folder has another format than this release's.
        CorruptFileError: its description cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        if not (self.folder / JOB_FILE).exists():
            raise InputError(
                f"there is no job in {str(folder)!r}: give the folder of a finished one."
            )
        record = read_job_file(self.folder)
        if not (self.folder / "result.json").exists():
            raise InputError(
                f"the job in {str(folder)!r} is not finished: run it to its end first."
            )
        try:
            self.spec = JobSpec.model_validate(record["spec"])
            self.family, self.fingerprint = (
                str(record["model"]),
                str(record["dataset_fingerprint"]),
            )
        except (ValidationError, KeyError) as error:
            raise CorruptFileError(
                f"{str(folder)!r} holds no job of this release ({error})."
            ) from error

    def trials(self) -> list[Trained]:
        """Its training candidates, best first; only the best one's network is sure to be there."""
        return [
            load_trial(self.folder / "training" / name) for name in read_json(self.folder / DONE)
        ]

    def network_hash(self) -> str:
        """SHA-256 of the trained weights."""
        return hashlib.sha256((self.trials()[0].folder / TENSORS).read_bytes()).hexdigest()

    def check_dataset(self, name: str, fingerprint: str) -> None:
        """
        Raises:
            InputError: a dataset is not the one that the job was trained on.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"dataset {name!r} is not what the job in {str(self.folder)!r} was trained on: its "
                f"fingerprint is "
                f"{fingerprint[:12]}, not {self.fingerprint[:12]}; give the same data."
            )

    def check_extension(self, spec: JobSpec) -> None:
        """
        Raises:
            InputError: a spec asks for another training; says what differs.
        """
        mine, theirs = self.spec, spec
        pairs: dict[str, tuple[Any, Any]] = {
            "seed": (mine.seed, theirs.seed),
            "model": (self.family, theirs.model or self.family),
        }
        for key, before in mine.budget.training:
            pairs[f"training.{key}"] = (before, getattr(theirs.budget.training, key))
        for key, (before, now) in pairs.items():
            if before != now:
                raise InputError(
                    f"{key} was {before!r} in the job in {str(self.folder)!r} and is {now!r}: an "
                    f"extension trains "
                    "nothing, so leave it as it was, or run a new job."
                )


def adopt_training(
    job: JobContext, parent: FinishedJob, template: Callable[[], OnnxTemplate]
) -> list[Trained]:
    """The parent's training candidates, best first, in the job's own folder; its accuracies are
    known to the search.

    Raises:
        ImpossibleBudgetError: the trained network misses a bound at its narrowest widths; nothing
            was copied.
        StorageError: a file could not be read or written; what was copied is kept.
    """
    if not (job.folder / DONE).exists():
        trials = parent.trials()
        with job.stage(Stage.CHECKING):
            check_trained(job, trials[0], template)
        evaluations = job.folder / EVALUATIONS
        if not evaluations.exists():
            inherit_evaluations(
                parent.folder / EVALUATIONS, evaluations, job.spec.budget.precisions
            )
        for trained in trials:
            folder = trained.folder.relative_to(parent.folder)
            if trained is trials[0]:
                for path in sorted(trained.folder.iterdir()):
                    job.reuse_from_parent(str(folder / path.name))
            job.reuse_from_parent(str(folder.parent / "outcome.json"))
        job.reuse_from_parent(DONE)
    return [load_trial(job.folder / "training" / name) for name in read_json(job.folder / DONE)]
