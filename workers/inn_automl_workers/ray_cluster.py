"""The Ray cluster that a backend works on."""

from __future__ import annotations

import logging
import socket

import ray

from inn_automl.core.errors import BackendError

CONNECT_TIMEOUT_S = 10.0


def connect(address: str | None, *, cpus: int, gpus: int) -> None:
    """Joins the cluster at `address`, or starts one on this machine; does nothing if joined.

    Args:
        cpus: processors of a cluster that is started here.
        gpus: likewise.

    Raises:
        BackendError: the cluster cannot be reached or started.
    """
    if ray.is_initialized():
        return
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        else:
            _check_listening(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many kinds
        where = "on this machine" if address is None else f"at {address!r}"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackendError(
            f"Ray cannot be reached {where} ({lines[0]}): check --address, or use --backend local."
        ) from error


def largest_node_cpus() -> int:
    """Processors of the cluster's largest node: a process that wants more would wait for ever."""
    return int(
        max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    )


def _check_listening(address: str) -> None:
    """Checks a HOST:PORT first: Ray itself looks for minutes for a cluster that is not there.

    Raises:
        OSError: nothing listens; other forms of an address are left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
