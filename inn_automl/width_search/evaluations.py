"""The state of a search on disk: an append-only table of evaluations.

The table is complete at any moment, so that a kill loses nothing that was evaluated; Optuna's
studies are rebuilt from it. Each line of the file is a JSON object. A last line that a kill or a
full disk cut short is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from inn_automl.core.errors import CorruptFileError, JobDirectoryError, StorageError
from inn_automl.core.precision import (
    BITS,
    COORDINATE,
    DEFAULT,
    is_a_choice,
    join_point,
    split_point,
)
from inn_automl.core.storage import write_atomically
from inn_automl.width_search.evaluated import Evaluated
from inn_automl.width_search.initial_design import InitialDesign

VERSION = 1
"""Version of the file's format."""


@dataclass(frozen=True)
class Evaluation:
    """Widths with their metric value on the validation split.

    Attributes:
        batch: number of the batch, counted from 0.
        device: the device whose search proposed the widths; empty for inherited evaluations.
    """

    widths: dict[str, int]
    metric_value: float
    batch: int
    device: str
    found: Evaluated | None = field(default=None, compare=False, repr=False)
    """All that was found; None where only the metric value is known."""

    @property
    def evaluated(self) -> Evaluated:
        """What the evaluation found."""
        return Evaluated(self.metric_value) if self.found is None else self.found


@dataclass(frozen=True)
class ProposedBatch:
    """Widths that the search of a device proposed, and that are being evaluated."""

    device: str
    widths: tuple[dict[str, int], ...]


class EvaluationTable:
    """Metric values by widths, shared by all devices of a job and appended to a file at once.

    The file begins with a header that names the network's coupled groups. Lines for the initial
    design of each device, for the begin (with its proposals) and the end of each batch, and for
    each evaluation follow.

    Args:
        path: the file; created if it does not exist.
        groups: name -> full size of the network's coupled groups; a file of another network is
            refused.

    Attributes:
        evaluations: in the order in which they were made.
        finished: for each finished batch the device that proposed it.
        begun: the batch being evaluated; None between batches.
        initial_designs: of each device whose search began.
        num_inherited: how many of the evaluations, the first ones, were made by another search.

    Raises:
        JobDirectoryError: the file belongs to a network with other coupled groups.
        CorruptFileError: a line other than the last is not what this class writes.
        StorageError: the file cannot be read or written.
    """

    def __init__(self, path: Path, groups: dict[str, int]) -> None:
        self.path = path
        self.evaluations: list[Evaluation] = []
        self.finished: list[str] = []
        self.begun: ProposedBatch | None = None
        self.initial_designs: dict[str, InitialDesign] = {}
        self.num_inherited = 0
        try:
            drop_torn_line(path)
            lines = path.read_bytes().splitlines() if path.exists() else []
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StorageError(
                f"the evaluations {str(path)!r} cannot be opened ({error}): check the folder."
            ) from error
        try:
            if not lines:
                self._append({"version": VERSION, "groups": groups})
            for number, line in enumerate(lines, start=1):
                self._read(number, line, groups)
        except BaseException:
            self._file.close()
            raise

    def set_initial_design(self, device: str, design: InitialDesign) -> None:
        """Records the initial design of a device's search.

        Later measurements change predictions, and with them what would be chosen now.

        Raises:
            StorageError: it cannot be written, e.g. because the disk is full.
        """
        keys = [list(key) for key in design.keys]
        self._append({"device": device, "initial": keys, "slowest_ms": design.slowest_ms})
        self.initial_designs[device] = design

    def begin_batch(self, device: str, widths: Sequence[Mapping[str, int]]) -> None:
        """Begins a batch with the widths that the search of a device proposed.

        Raises:
            StorageError: it cannot be written, e.g. because the disk is full.
        """
        proposed = tuple(dict(one) for one in widths)
        self._append({"begun": self.batch, "device": device, "widths": proposed})
        self.begun = ProposedBatch(device, proposed)

    def add(self, widths: Mapping[str, int], value: float | Evaluated, device: str) -> None:
        """Appends an evaluation of the current batch, which survives a kill from here on.

        Args:
            value: the metric value, or all that was found.

        Raises:
            StorageError: it cannot be written, e.g. because the disk is full.
        """
        found = Evaluated.of(value)
        evaluation = Evaluation(dict(widths), found.metric_value, self.batch, device, found)
        self._append(
            {
                "batch": self.batch,
                "device": device,
                "widths": evaluation.widths,
                **found.to_dict(),
            }
        )
        self.evaluations.append(evaluation)

    def finish_batch(self, device: str) -> None:
        """Ends the current batch; everything so far survives a loss of power from here on.

        Raises:
            StorageError: it cannot be written, e.g. because the disk is full.
        """
        self._append({"finished": self.batch, "device": device}, sync=True)
        self.finished.append(device)
        self.begun = None

    @property
    def num_own(self) -> int:
        """Number of evaluations that this search paid for."""
        return len(self.evaluations) - self.num_inherited

    @property
    def batch(self) -> int:
        """Number of the batch being evaluated, counted from 0."""
        return len(self.finished)

    @property
    def num_missing(self) -> int:
        """Number of evaluations that the current batch still lacks."""
        if self.begun is None:
            return 0
        return len(self.begun.widths) - sum(one.batch == self.batch for one in self.evaluations)

    @property
    def missing(self) -> list[dict[str, int]]:
        """Proposals of the current batch that were not evaluated yet."""
        if self.begun is None:
            return []
        done = [one.widths for one in self.evaluations if one.batch == self.batch]
        return [one for one in self.begun.widths if one not in done]

    def __enter__(self) -> EvaluationTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _append(self, record: dict[str, Any], *, sync: bool = False) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError("only a part of the line was written")
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(
                f"an evaluation could not be written to {str(self.path)!r} ({error}): free some "
                f"space and run again."
            ) from error

    def _read(self, number: int, line: bytes, groups: dict[str, int]) -> None:
        try:
            record = json.loads(line)
            if number == 1:
                found = record["groups"]
                self.num_inherited = int(record.get("inherited", 0))
            elif "initial" in record:
                keys = tuple(tuple(int(width) for width in key) for key in record["initial"])
                design = InitialDesign(keys, float(record["slowest_ms"]))
                self.initial_designs[str(record["device"])] = design
            elif "begun" in record:
                self.begun = ProposedBatch(
                    str(record["device"]), tuple(map(_widths, record["widths"]))
                )
            elif "finished" in record:
                self.finished.append(str(record["device"]))
                self.begun = None
            else:
                evaluated = Evaluated.from_dict(record)
                self.evaluations.append(
                    Evaluation(
                        _widths(record["widths"]),
                        evaluated.metric_value,
                        int(record["batch"]),
                        str(record["device"]),
                        evaluated,
                    )
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFileError(
                f"line {number} of {str(self.path)!r} is not an evaluation ({error!r}): remove the "
                f"file to search again."
            ) from error
        if number == 1 and found != groups:
            raise JobDirectoryError(
                f"{str(self.path)!r} belongs to a network with coupled groups {found}, not "
                f"{groups}: "
                "choose another output folder or remove the file."
            )


def inherit_evaluations(
    parent: Path, child: Path, precisions: Collection[str] = (DEFAULT,)
) -> None:
    """Begins the table `child` with the evaluations of another search.

    They form a first batch, which costs nothing of the new search's budget.

    Args:
        precisions: those of the new search; evaluations of others are left behind.

    Raises:
        CorruptFileError: a line of `parent` is not what `EvaluationTable` writes.
        StorageError: `parent` cannot be read, or `child` not be written.
    """
    try:
        header, *records = (json.loads(line) for line in parent.read_bytes().splitlines())
        made = []
        for record in records:
            if "metric_value" in record and split_point(record["widths"])[1] in precisions:
                made.append({**record, "batch": 0, "widths": _point(record["widths"], precisions)})
        groups, _ = split_point(header["groups"])
        if is_a_choice(precisions):
            groups[COORDINATE] = max(BITS[precision] for precision in precisions)
        header.update(groups=groups, inherited=len(made))
    except OSError as error:
        raise StorageError(
            f"the evaluations {str(parent)!r} cannot be read ({error}): check the folder."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptFileError(
            f"{str(parent)!r} holds no evaluations ({error!r}): its job cannot be extended."
        ) from error
    lines = [
        header,
        {"begun": 0, "device": "", "widths": []},
        *made,
        {"finished": 0, "device": ""},
    ]
    write_atomically(
        child, b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    )


def _widths(value: Any) -> dict[str, int]:
    return {str(name): int(width) for name, width in value.items()}


def _point(point: dict[str, int], precisions: Collection[str]) -> dict[str, int]:
    """Adds the coordinate of precision to a point if there is a choice, and removes it if not."""
    widths, precision = split_point(point)
    return join_point(widths, precision) if is_a_choice(precisions) else widths


def drop_torn_line(path: Path) -> None:
    """Cuts off the last line of a file if a crash left it without its end."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
