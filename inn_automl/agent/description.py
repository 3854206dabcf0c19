"""Description of this machine, for the coordinator."""

from __future__ import annotations

from inn_automl import runtimes
from inn_automl.api.devices import DeviceDescription
from inn_automl.core.errors import MeasurementError
from inn_automl.core.version import __version__
from inn_automl.runtimes.environment import describe_machine, num_usable_cores
from inn_automl.runtimes.nvidia import cuda_devices


def describe_device() -> DeviceDescription:
    """Describes this machine.

    Raises:
        MeasurementError: no runtime is installed.
    """
    versions, reasons = runtimes.probe()
    if not versions:
        raise MeasurementError(f"no runtime can be used here: {' '.join(reasons.values())}")
    machine = describe_machine()
    details = {
        key: value for key, value in machine.items() if key not in ("cpu_model", "memory_bytes")
    }
    return DeviceDescription(
        agent_version=__version__,
        cpu=(machine["cpu_model"] or "unknown")[:256],
        num_cores=num_usable_cores(),
        memory_bytes=machine["memory_bytes"],
        runtimes=versions,
        details={**details, "gpus": cuda_devices(), "missing_runtimes": reasons},
    )
