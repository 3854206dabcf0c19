"""The state of a search on disk, complete at any moment, so that a kill loses nothing that was
evaluated.

The table of accuracies is what counts. The Optuna studies beside it save their samplers' past;
they can be told everything again from the table. Both are files of one JSON object a line, to
which lines are only appended; a last line that a kill or a full disk cut short is dropped when the
file is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

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


@dataclass(frozen=True)
class Evaluation:
    """Widths with their accuracy (share of the validation split), and the batch and device that
    asked for them.
    """

    widths: dict[str, int]
    metric_value: float
    batch: int
    device: str


class EvaluationTable:
    """Accuracy by widths, shared by all devices of a job and appended to a file at once.

    The file begins with a header that names the network's coupled groups; then comes a line for
    each beginning and end of a batch, and one for each evaluation.

    Args:
        path: the file; created if it does not exist.
        groups: name -> full size of the network's coupled groups; a file of another network is
            refused.

    Attributes:
        evaluations: in the order in which they were made.
        finished: for each finished batch the device that asked for it.
        begun: device and size of the batch being evaluated; None between batches.
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
        self.begun: tuple[str, int] | None = None
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
                self._append({"version": 1, "groups": groups})
            for number, line in enumerate(lines, start=1):
                self._read(number, line, groups)
        except BaseException:
            self._file.close()
            raise

    def begin_batch(self, device: str, num: int) -> None:
        """Begins a batch of `num` evaluations that a device asked for.

        Raises:
            StorageError: it cannot be written, e.g. because the disk is full.
        """
        self._append({"begun": self.batch, "device": device, "num": num})
        self.begun = device, num

    def add(self, widths: dict[str, int], metric_value: float, device: str) -> None:
        """Appends an evaluation of the current batch; it survives a kill of the process from here
        on.

        Raises:
            StorageError: it cannot be written, e.g. because the disk is full.
        """
        evaluation = Evaluation(dict(widths), metric_value, self.batch, device)
        self._append(
            {
                "batch": self.batch,
                "device": device,
                "widths": evaluation.widths,
                "metric_value": metric_value,
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
        """Evaluations that this search paid for."""
        return len(self.evaluations) - self.num_inherited

    @property
    def batch(self) -> int:
        """The batch being evaluated, counted from 0."""
        return len(self.finished)

    @property
    def num_missing(self) -> int:
        """Evaluations that the current batch still lacks."""
        if self.begun is None:
            return 0
        return self.begun[1] - sum(
            evaluation.batch == self.batch for evaluation in self.evaluations
        )

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
            elif "begun" in record:
                self.begun = str(record["device"]), int(record["num"])
            elif "finished" in record:
                self.finished.append(str(record["device"]))
                self.begun = None
            else:
                widths = {str(name): int(width) for name, width in record["widths"].items()}
                self.evaluations.append(
                    Evaluation(
                        widths,
                        float(record["metric_value"]),
                        int(record["batch"]),
                        str(record["device"]),
                    )
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFileError(
                f"line {number} of {str(self.path)!r} is not an evaluation ({error!r}): remove the "
                f"file to search anew."
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
    """Begins the table `child` with all evaluations of another search's, as a first batch that
    cost nothing.

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
        {"begun": 0, "device": "", "num": len(made)},
        *made,
        {"finished": 0, "device": ""},
    ]
    write_atomically(
        child, b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    )


def _point(point: dict[str, int], precisions: Collection[str]) -> dict[str, int]:
    """A point with the coordinate of precision where these are a choice, and without it where they
    are none.
    """
    widths, precision = split_point(point)
    return join_point(widths, precision) if is_a_choice(precisions) else widths


def drop_torn_line(path: Path) -> None:
    """Cuts off what follows the last line end of a file, if it exists: a line that was being
    written at a crash.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a folder; the system lets go of it even if this process is
    killed.

    Raises:
        JobDirectoryError: another process is in there.
        StorageError: the folder cannot be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise StorageError(
            f"the folder {str(folder)!r} cannot be written ({error}): choose another."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JobDirectoryError(
                f"another process is searching in {str(folder)!r}: wait for it or choose another "
                f"output folder."
            ) from error
        yield


def open_journal(path: Path) -> BaseStorage:
    """Optuna's journal file, for a process that has the folder to itself.

    A journal that cannot be read is set aside as `*.corrupt` and a new one begun.

    Raises:
        StorageError: it cannot be read or, later, written.
    """
    try:
        drop_torn_line(path)
        try:
            return JournalStorage(_Journal(str(path), lock_obj=_Unlocked(str(path))))
        except (ValueError, KeyError, TypeError):
            path.replace(path.with_suffix(".corrupt"))
            return JournalStorage(_Journal(str(path), lock_obj=_Unlocked(str(path))))
    except OSError as error:
        raise StorageError(
            f"the studies {str(path)!r} cannot be opened ({error}): check the folder."
        ) from error


class _Journal(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise StorageError(
                f"a trial could not be written to {self._file_path!r} ({error}): free some space "
                f"and run again."
            ) from error


class _Unlocked(JournalFileOpenLock):
    """No lock: the folder is locked already, and a lock file of Optuna's would outlive a killed
    process.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None
