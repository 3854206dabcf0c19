"""Control of this process, its children and its log."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

STOPPED_EXIT_CODE = 3
"""Exit code of a run that was cancelled, or whose job another attempt holds."""


def log(message: object) -> None:
    """Writes a line to the job's log, unless the disk that the log lies on is full."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def stop_process(reason: str) -> NoReturn:
    """Ends this process and its children at once.

    The files that they wrote are whole: another attempt continues from them.
    """
    log(f"stopped: {reason}")
    for pid in _descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(STOPPED_EXIT_CODE)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listing.read_text().split()):
                found += [child, *_descendants(child)]
    return found
