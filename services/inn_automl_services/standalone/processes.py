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


def marks(home: Path, part: str) -> dict[str, str]:
    """What the environment of a part carries."""
    # The third one keeps programs that change their title (Ray's workers) from writing it over
    # their environment.
    return {STACK_VARIABLE: str(home), PROCESS_VARIABLE: part, "SPT_NOENV": "1"}


def find(home: Path, part: str | None = None) -> list[int]:
    """Process ids of what belongs to a stack, or to one part of it; never this process itself, and
    none that has ended but was not waited for, whose environment is empty."""
    wanted = {f"{STACK_VARIABLE}={home}".encode()}
    if part is not None:
        wanted.add(f"{PROCESS_VARIABLE}={part}".encode())
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):  # it ended, or is somebody else's
                if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return found


def end(
    home: Path, part: str | None = None, *, first: tuple[int, ...] = (), grace_s: float = 5.0
) -> None:
    """Ends all processes of a stack or part: SIGTERM to `first` (to all, where empty), SIGKILL to
    what is left after `grace_s`."""
    for process in first or find(home, part):
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while find(home, part) and time.monotonic() < deadline:
        time.sleep(STEP_S)
    # What is killed may have started something in that very moment.
    while left := find(home, part):
        for process in left:
            _signal(process, signal.SIGKILL)
        time.sleep(STEP_S)


def _signal(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)
