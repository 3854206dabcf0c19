"""The service from Python: `Client` speaks to a coordinator, `find_server` says where one is."""

from inn_automl.client.client import Client
from inn_automl.client.location import Location, find_server
from inn_automl.core.errors import ConnectionLostError, JobEndedError, RefusedError, ServiceError

__all__ = [
    "Client",
    "ConnectionLostError",
    "JobEndedError",
    "Location",
    "RefusedError",
    "ServiceError",
    "find_server",
]
