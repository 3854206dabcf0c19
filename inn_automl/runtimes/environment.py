"""Description of the machine that a latency was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_CPUS = Path("/sys/devices/system/cpu")


def num_usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Describes CPU, cores, memory, platform and clock governor; None for what cannot be read."""
    return {
        "cpu_model": _cpu_model(),
        "num_cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": _memory_bytes(),
        "platform": platform.platform(),
        "architecture": platform.machine(),
        "python_version": platform.python_version(),
        "governor": _governor(),
        "max_frequency_mhz": _max_frequency_mhz(),
        "turbo": _turbo(),
    }


def _cpu_model() -> str | None:
    # x86 says "model name"; most ARM boards say it only in the device tree.
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    return _read("/proc/device-tree/model") or platform.processor() or platform.machine() or None


def _governor() -> str | None:
    """The power governor; all of them where the cores have several, as those of a big.LITTLE
    processor may.
    """
    found = {_read(str(path)) for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(filter(None, found))) or None


def _max_frequency_mhz() -> float | None:
    """The highest clock that the governor may choose, of the fastest core."""
    found = [_read(str(path)) for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_max_freq")]
    return max((int(khz) / 1e3 for khz in found if khz and khz.isdigit()), default=None)


def _turbo() -> bool | None:
    """Return whether the clock may exceed the processor's base frequency."""
    no_turbo, boost = (
        _read(str(_CPUS / "intel_pstate/no_turbo")),
        _read(str(_CPUS / "cpufreq/boost")),
    )
    if no_turbo is not None:
        return no_turbo == "0"
    return None if boost is None else boost == "1"


def _memory_bytes() -> int | None:
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    allowed = _read("/sys/fs/cgroup/memory.max")  # of a container; "max" where there is no limit
    return min(installed, int(allowed)) if allowed and allowed.isdigit() else installed


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None
