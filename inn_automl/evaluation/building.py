"""The builder of a job's candidates, the same in every process.

Which reconstruction rules are tried is found once and kept with the network, for it depends on the
time that they take.

FOLDER/reconstruction.json    positions in `RECONSTRUCTION_RULES`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inn_automl.core.errors import CorruptFileError
from inn_automl.core.storage import read_json, write_json
from inn_automl.evaluation.candidates import CandidateBuilder
from inn_automl.integral.conversion.reconstruction import (
    RECONSTRUCTION_RULES,
    ReconstructionRule,
)

if TYPE_CHECKING:
    from inn_automl.integral import IntegralNetwork
    from inn_automl.tasks import Task

RULES = "reconstruction.json"


def make_builder(network: IntegralNetwork, task: Task, folder: Path) -> CandidateBuilder:
    """The builder of a network's candidates, with the rules that are kept in its folder, if any.

    Raises:
        CorruptFileError: the folder's file holds something else.
    """
    return CandidateBuilder.from_network(network, task, rules=_read(folder / RULES))


def keep_rules(builder: CandidateBuilder, folder: Path) -> None:
    """Finds the rules that help, and keeps them in the network's folder; once.

    Raises:
        StorageError: the file could not be written.
    """
    if not (folder / RULES).exists():
        positions = [RECONSTRUCTION_RULES.index(rule) for rule in builder.rules]
        write_json(folder / RULES, {"rules": positions})


def _read(path: Path) -> tuple[ReconstructionRule, ...] | None:
    if not path.exists():
        return None
    try:
        return tuple(RECONSTRUCTION_RULES[int(index)] for index in read_json(path)["rules"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptFileError(
            f"{str(path)!r} holds no reconstruction rules ({error!r}): delete it to have them "
            "found again."
        ) from error
