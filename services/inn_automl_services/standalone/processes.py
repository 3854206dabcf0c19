"""Processes of a stack, found by a mark in their environment, which whatever they start inherits.

A mark finds what process groups and parents do not: Ray gives its workers sessions of their own,
and what lost its parent has no tree. No process that another program started can carry it, however
process ids are reused.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

STACK_VARIABLE, PROCESS_VARIABLE = "INN_AUTOML_STACK", "INN_AUTOML_PROCESS"
STEP_S = 0.05


def marks(folder: Path, process: str) -> dict[str, str]:
    """Variables that mark the environment of a process of the stack."""
    # The third one keeps programs that change their title (Ray's workers) from writing it over
    # their environment.
    return {STACK_VARIABLE: str(folder), PROCESS_VARIABLE: process, "SPT_NOENV": "1"}


def find(folder: Path, process: str | None = None) -> list[int]:
    """Ids of the processes that belong to a stack, or to one process of it and its children.

    Neither this process itself, nor one that has ended but was not waited for: its environment is
    empty.
    """
    wanted = {f"{STACK_VARIABLE}={folder}".encode()}
    if process is not None:
        wanted.add(f"{PROCESS_VARIABLE}={process}".encode())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it ended, or is somebody else's
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
    return found


def end(
    folder: Path,
    process: str | None = None,
    *,
    first: tuple[int, ...] = (),
    timeout_s: float = 5.0,
) -> None:
    """Ends all processes of a stack, or of one process and its children.

    Args:
        first: ids that get a SIGTERM; all, where empty.
        timeout_s: after this time, the rest gets a SIGKILL.
    """
    for number in first or find(folder, process):
        _signal(number, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while find(folder, process) and time.monotonic() < deadline:
        time.sleep(STEP_S)
    # What is killed may have started something in that very moment.
    while left := find(folder, process):
        for number in left:
            _signal(number, signal.SIGKILL)
        time.sleep(STEP_S)


def _signal(process_id: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process_id, number)
