"""Looks up the names in a spec before anything is queued: its dataset, its family, the agents of
its devices.
"""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from inn_automl.core.allowed_models import SEPARATOR
from inn_automl.core.errors import SpecError, UnknownNameError, WidthsError
from inn_automl.core.metric import TASKS, TaskKind, check_class_weights, metric_of_task
from inn_automl.core.spec import BUILTIN_KINDS, FAMILY_KINDS, IMAGE_TO_IMAGE, DeviceBudget, JobSpec
from inn_automl_services.coordinator.db.tables import DeviceRow, JobRow
from inn_automl_services.coordinator.devices.service import check_budget
from inn_automl_services.coordinator.jobs import repository

NUM_LISTED = 20
"""Names that a message lists at most."""

_CLASSIFICATION: TaskKind = "classification"
"""The task of built-in datasets."""
_IMAGE_LIBRARIES = ("timm", "torchvision")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def resolve(session: Session, project_id: str, spec: JobSpec) -> tuple[JobSpec, str | None]:
    """The spec with every agent named, and the id of its dataset (None for a built-in one).

    Raises:
        UnknownNameError: there is no such dataset, model or agent; the message says which there
            are.
        SpecError: model or metric do not fit the data, or a device asks for more than its agent
            has.
    """
    name, kind, dataset_id, task = _dataset(session, project_id, spec.dataset)
    if spec.model is not None:
        _check_model(spec.model, kind, task, spec.dataset)
    metric_of_task(spec.metric, task)
    check_class_weights(spec.class_weights, task)
    devices = resolve_devices(session, project_id, spec.budget.devices)
    budget = spec.budget.model_copy(update={"devices": devices})
    return spec.model_copy(update={"dataset": name, "budget": budget}), dataset_id


def dataset_id_of(session: Session, project_id: str, source: str) -> str | None:
    """Id of the dataset that a spec names; None for a built-in one.

    Raises:
        UnknownNameError: there is none of that name.
        SpecError: it is no name.
    """
    return _dataset(session, project_id, source)[2]


def resolve_devices(
    session: Session, project_id: str, budgets: tuple[DeviceBudget, ...]
) -> tuple[DeviceBudget, ...]:
    """The devices, each with its agent.

    Raises:
        UnknownNameError: no such agent.
        SpecError: none is named where the project has none or several, or the agent has not the
            runtime or the requested cores.
    """
    known = repository.devices_named(
        session, project_id, {budget.agent for budget in budgets if budget.agent}
    )
    others = repository.some_devices(session, project_id, NUM_LISTED + 1)
    resolved = []
    for budget in budgets:
        agent = _agent(budget, known, [device.name for device in others])
        device = known.get(agent) or next(device for device in others if device.name == agent)
        check_budget(device, budget)
        resolved.append(budget.model_copy(update={"agent": agent}))
    return tuple(resolved)


def _dataset(
    session: Session, project_id: str, source: str
) -> tuple[str, str, str | None, TaskKind]:
    """Name, kind of data, id, and task."""
    if source in BUILTIN_KINDS:
        return source, BUILTIN_KINDS[source], None, _CLASSIFICATION
    if not _NAME.fullmatch(source):
        raise SpecError(
            f"dataset = {source!r:.200}: the service reads no files by path; upload it first "
            "(PUT /v1/datasets/content/{sha256}, or `inn-automl submit`, which does so) and give "
            "the dataset's name."
        )
    found = repository.find_dataset(session, project_id, source)
    if found is None:
        names = repository.dataset_names(session, project_id, NUM_LISTED)
        raise UnknownNameError("dataset", source, {*BUILTIN_KINDS, *names})
    task = next(one for one in TASKS if one == found.metadata_["task"])
    return found.name, str(found.metadata_["kind"]), found.id, task


def _check_model(family: str, kind: str, task: str, dataset: str) -> None:
    if SEPARATOR in family:
        library = family.partition(SEPARATOR)[0]
        if task == "super-resolution":
            raise SpecError(
                f"model {family!r} does not serve {task}, as {dataset!r} requires: use edsr."
            )
        if library in _IMAGE_LIBRARIES and kind != "image":
            serving = " or ".join(name for name, kinds in FAMILY_KINDS.items() if kind in kinds)
            raise SpecError(
                f"model {family!r} takes images, not {kind}s such as those of {dataset!r}: use "
                f"{serving}."
            )
        return
    if family not in FAMILY_KINDS:
        raise UnknownNameError("model", family, FAMILY_KINDS)
    fitting = [
        name
        for name, kinds in FAMILY_KINDS.items()
        if kind in kinds and (name in IMAGE_TO_IMAGE) == (task == "super-resolution")
    ]
    if family not in fitting and kind in FAMILY_KINDS[family]:
        raise SpecError(
            f"model {family!r} does not serve {task}, as {dataset!r} requires: use "
            f"{' or '.join(fitting)}."
        )
    if family not in fitting:
        raise SpecError(
            f"model {family!r} does not take {kind}s such as those of {dataset!r}: use "
            f"{' or '.join(fitting)}."
        )


def _agent(budget: DeviceBudget, known: dict[str, DeviceRow], others: list[str]) -> str:
    """Name of the agent that measures a device."""
    if budget.agent is not None:
        if budget.agent not in known:
            if not others:
                raise SpecError(
                    f"device {budget.name!r}: unknown agent {budget.agent!r}: {_NO_AGENT}"
                )
            raise UnknownNameError(
                "agent", budget.agent, others[:NUM_LISTED], f"device {budget.name!r}"
            )
        return budget.agent
    if not others:
        raise SpecError(f"device {budget.name!r} names no agent: {_NO_AGENT}")
    if len(others) > 1:
        listed = ", ".join(others[:NUM_LISTED]) + (", ..." if len(others) > NUM_LISTED else "")
        raise SpecError(
            f"device {budget.name!r} names no agent, and the project has several: set `agent` to "
            f"one of {listed}."
        )
    return others[0]


_NO_AGENT = (
    "the project has no device registered; start `inn-automl agent` on the machine that is to "
    "measure."
)


def check_widths(session: Session, parent: JobRow, widths: dict[str, int]) -> None:
    """
    Raises:
        WidthsError: a coupled group of the network is missing or unknown, as far as the job's
            fronts tell.
    """
    groups = repository.groups_of(session, parent.id)
    if groups is None:
        return
    hint = f"give a width for each of {', '.join(groups)}"
    unknown, missing = (
        sorted(widths.keys() - set(groups)),
        [name for name in groups if name not in widths],
    )
    if unknown:
        raise WidthsError(f"unknown coupled group {unknown[0]!r:.80}: {hint}.")
    if missing:
        raise WidthsError(f"widths lack the coupled group {missing[0]!r}: {hint}.")
