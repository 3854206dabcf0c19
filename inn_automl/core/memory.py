"""The memory that this machine, or the container on it, has left."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Bytes that may still be taken, by the kernel's estimate and the container's limit; None
    where neither is told.
    """
    found = [value for value in (_of_machine(), _of_container()) if value is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_container() -> int | None:
    """By version 2 of control groups; file pages, which the kernel gives back, do not count."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        taken = int((_CGROUP / "memory.current").read_text())
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        pages = dict(line.split() for line in lines)
        return max(0, limit - taken + int(pages.get("file", 0)))
    except (OSError, ValueError):
        return None
