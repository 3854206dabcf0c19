"""What a device agent says of its machine."""

from __future__ import annotations

from inn_automl import __version__
from inn_automl.api.devices import DeviceDescription
from inn_automl.devices import runtimes
from inn_automl.devices.environment import describe_machine, num_usable_cores
from inn_automl.errors import MeasurementError


def describe_device() -> DeviceDescription:
    """This machine.

    Raises:
        MeasurementError: no runtime is installed.
    """
    machine = describe_machine()
    details = {key: machine[key] for key in ("platform", "python_version", "governor", "num_cores", "affinity")}
    return DeviceDescription(
        agent_version=__version__,
        cpu=(machine["cpu_model"] or "unknown")[:256],
        num_cores=num_usable_cores(),
        memory_bytes=machine["memory_bytes"],
        runtimes=_installed_runtimes(),
        details=details,
    )


def _installed_runtimes() -> dict[str, str]:
    found = {}
    for name in runtimes.NAMES:
        try:
            found[name] = str(runtimes.create(name, 1).describe()["runtime_version"])
        except (ImportError, MeasurementError):
            continue
    if not found:
        raise MeasurementError(f"none of the runtimes {', '.join(runtimes.NAMES)} can be used here: install one.")
    return found
