"""Every error that inn_automl raises on purpose.

    InnAutomlError
    ├── InputError (ValueError)               the caller's input is at fault; nothing was spent;
    exit code 2 │   ├── SpecError                         a key or a value of a job spec or budget
    │   │   ├── UnknownNameError              a name that is not registered; says the nearest one
    that is │   │   └── ImpossibleBudgetError         no network of the family can meet the bound;
    says the reachable range │   ├── DatasetError                      a dataset that cannot be
    used │   │   ├── DatasetNotFoundError (FileNotFoundError) │   │   ├── DatasetFormatError
    unreadable, inconsistent, or not numbers │   │   ├── DatasetTooSmallError          a class has
    fewer samples than the splits need │   │   └── UnsafeArchiveError            an archive that
    leaves its folder or expands beyond the limit │   ├── WidthsError                       widths
    outside of what a coupled group allows │   ├── ModuleError                       a torch module
    that cannot become an integral network │   └── JobDirectoryError                 an output
    folder that belongs to another job ├── TrainingError (RuntimeError)          training diverged
    or could not go on ├── ExportError (RuntimeError)            a model could not be written as
    ONNX │   └── VerificationError                 the exported model does not compute what the
    torch model computes ├── MeasurementError (RuntimeError)       a latency could not be measured
    ├── BackendError (RuntimeError)           the workers could not do what was asked of them └──
    StorageError (OSError)                a file could not be written or read back whole
        └── CorruptFileError                  a file whose content does not match its hash or
        format

A message names the fault, the value and the remedy, in one sentence where it can.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InnAutomlError(Exception):
    """Root of the tree."""


class InputError(InnAutomlError, ValueError):
    """The caller's input is at fault; nothing was spent."""


class SpecError(InputError):
    """A key or a value of a job spec or budget is wrong."""


class UnknownNameError(SpecError):
    """A name that is not registered.

    Args:
        kind: what the name should have been, e.g. `"family"`.
        name: what was given.
        known: the registered names; the nearest one is put into the message.
        where: the place the name was read from, e.g. a file and a key.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known, self.where = kind, name, sorted(known), where
        nearest = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        place = f"{where}: " if where else ""
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        super().__init__(f"{place}unknown {kind} {name!r}: {hint}Known: {', '.join(self.known)}.")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str], str]]:
        return type(self), (self.kind, self.name, self.known, self.where)


class ImpossibleBudgetError(SpecError):
    """No network of the family can meet a bound of the budget."""


class DatasetError(InputError):
    """A dataset cannot be used."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no dataset at the path, nor a built-in one of that name."""


class DatasetFormatError(DatasetError):
    """A dataset is unreadable, inconsistent, or holds something other than finite numbers."""


class DatasetTooSmallError(DatasetError):
    """A class has fewer samples than the splits need, or there is one class only."""


class UnsafeArchiveError(DatasetError):
    """An archive leaves its folder or expands beyond the limit."""


class WidthsError(InputError):
    """Widths outside of what a coupled group allows."""


class ModuleError(InputError):
    """A torch module cannot become an integral network."""


class JobDirectoryError(InputError):
    """An output folder belongs to another job."""


class TrainingError(InnAutomlError, RuntimeError):
    """Training diverged or could not go on."""


class ExportError(InnAutomlError, RuntimeError):
    """A model could not be written as ONNX."""


class VerificationError(ExportError):
    """The exported model does not compute what the torch model computes."""


class MeasurementError(InnAutomlError, RuntimeError):
    """A latency could not be measured."""


class BackendError(InnAutomlError, RuntimeError):
    """The workers could not do what was asked of them."""


class StorageError(InnAutomlError, OSError):
    """A file could not be written or read back whole."""


class CorruptFileError(StorageError):
    """A file's content does not match its hash or format."""
