"""Extending: the network of a finished job, its accuracies, latency measurements and models serve
other devices and bounds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inn_automl.core.errors import CorruptFileError, InputError
from inn_automl.core.result import JobResult
from inn_automl.core.spec import JobSpec
from inn_automl.core.stage import Stage
from inn_automl.core.storage import read_json
from inn_automl.data import Preprocessing
from inn_automl.integral.checkpoint import TENSORS
from inn_automl.pipeline.checking import check_trained
from inn_automl.pipeline.context import JobContext
from inn_automl.pipeline.folder import JOB_FILE, RESULT_FILE, read_job_file
from inn_automl.pipeline.records import TrainedTrials
from inn_automl.pipeline.training import DONE, load_trials, read_trials
from inn_automl.training.trained import OUTCOME, Trained
from inn_automl.width_search.evaluations import inherit_evaluations

EVALUATIONS = "search/state/evaluations.jsonl"


@dataclass(frozen=True)
class FinishedJob:
    """A finished job in its folder, which is only read.

    Attributes:
        spec: the spec that it ran with.
        family: the model family that it trained.
        fingerprint: fingerprint of its dataset.
        preprocessing: of its images; None for signals.
        choices: what was chosen for the user.
    """

    folder: Path
    spec: JobSpec
    family: str
    fingerprint: str
    preprocessing: Preprocessing | None = None
    choices: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> FinishedJob:
        """Reads the description of the job in a folder.

        Raises:
            InputError: there is no finished job in the folder.
            JobDirectoryError: the folder has another format than this release's.
            CorruptFileError: its description cannot be read.
        """
        if not (folder / JOB_FILE).exists():
            raise InputError(
                f"there is no job in {str(folder)!r}: give the folder of a finished one."
            )
        record = read_job_file(folder)
        if not (folder / RESULT_FILE).exists():
            raise InputError(
                f"the job in {str(folder)!r} is not finished: run it to its end first."
            )
        try:
            return cls(
                folder.absolute(),
                JobSpec.model_validate(record["spec"]),
                str(record["model"]),
                str(record["dataset_fingerprint"]),
                Preprocessing.from_metadata(found) if (found := record["preprocessing"]) else None,
                tuple(record["choices"]),
            )
        except (ValidationError, KeyError) as error:
            raise CorruptFileError(
                f"{str(folder / JOB_FILE)!r} does not describe a job ({error})."
            ) from error

    def trials(self) -> list[Trained]:
        """Its training candidates, best first; only the best one's network is sure to be there."""
        return load_trials(self.folder)

    def optimism(self) -> dict[str, float]:
        """By how much validation flatters each of its front points, by their ids."""
        result = JobResult.model_validate(read_json(self.folder / RESULT_FILE))
        taken_off = float(result.job.get("optimism", 0.0))
        return {point.id: taken_off for device in result.devices for point in device.front}

    def network_hash(self) -> str:
        """SHA-256 of the trained weights."""
        tensors = self.trials()[0].folder / TENSORS
        return hashlib.sha256(tensors.read_bytes()).hexdigest()

    def check_dataset(self, name: str, fingerprint: str) -> None:
        """Checks that a dataset is the one that the job was trained on.

        Raises:
            InputError: it is not.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"dataset {name!r} is not what the job in {str(self.folder)!r} was trained on: its "
                f"fingerprint is "
                f"{fingerprint[:12]}, not {self.fingerprint[:12]}; give the same data."
            )

    def check_extension(self, spec: JobSpec) -> None:
        """Checks that a spec differs in devices and search only.

        Raises:
            InputError: it asks for another training; says what differs.
        """
        pairs: dict[str, tuple[Any, Any]] = {
            "seed": (self.spec.seed, spec.seed),
            "model": (self.family, spec.model or self.family),
            "metric": (self.spec.metric, spec.metric),
            "class_weights": (self.spec.class_weights, spec.class_weights),
        }
        for key, before in self.spec.budget.training:
            pairs[f"training.{key}"] = (before, getattr(spec.budget.training, key))
        for key, (before, now) in pairs.items():
            if before != now:
                raise InputError(
                    f"{key} was {before!r} in the job in {str(self.folder)!r} and is {now!r}: an "
                    f"extension trains "
                    "nothing, so leave it as it was, or run a new job."
                )


def reuse_training(context: JobContext, parent: FinishedJob) -> TrainedTrials:
    """Copies the parent's training candidates and accuracies into the job's own folder.

    Raises:
        ImpossibleBudgetError: the trained network misses a bound at its narrowest widths; nothing
            was copied.
        StorageError: a file could not be read or written; what was copied is kept.
    """
    if (context.folder / DONE).exists():
        return read_trials(context)
    trials = parent.trials()
    with context.stage(Stage.CHECKING):
        check_trained(context, trials[0])
    evaluations = context.folder / EVALUATIONS
    if not evaluations.exists():
        inherit_evaluations(
            parent.folder / EVALUATIONS, evaluations, context.spec.budget.precisions
        )
    for one in trials:
        folder = one.folder.relative_to(parent.folder)
        if one is trials[0]:
            for path in sorted(one.folder.iterdir()):
                context.reuse_from_parent(str(folder / path.name))
        context.reuse_from_parent(str(folder.parent / OUTCOME))
    context.reuse_from_parent(DONE)
    return read_trials(context)
