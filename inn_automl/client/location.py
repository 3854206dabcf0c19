"""Address of the service, and the key for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inn_automl.core.errors import AuthenticationError, NoServerError
from inn_automl.core.home import home_folder
from inn_automl.core.storage import read_json

ADDRESS_FILE, SECRETS_FILE = "address.json", "secrets.json"
URL_VARIABLE, KEY_VARIABLE = "INN_AUTOML_URL", "INN_AUTOML_KEY"


@dataclass(frozen=True)
class Location:
    """A coordinator and a key for it."""

    url: str
    key: str = field(repr=False)


def find_server(
    home: Path | None = None, url: str | None = None, key: str | None = None
) -> Location:
    """Finds the server: `url` and `key`, else the stack of `home`, else what the
    environment names (INN_AUTOML_URL, INN_AUTOML_KEY), else the stack of the default home.

    Raises:
        NoServerError: none of these says where one is; the message says how to start one.
        AuthenticationError: there is a URL without a key.
        CorruptFileError: a file of the stack is not JSON.
    """
    environment_key = os.environ.get(KEY_VARIABLE)
    if url:
        return Location(url.rstrip("/"), _needed(key or environment_key))
    if home is not None:
        return _of_home(home.expanduser(), key)
    if from_environment := os.environ.get(URL_VARIABLE):
        return Location(from_environment.rstrip("/"), _needed(key or environment_key))
    default = home_folder()
    if (default / ADDRESS_FILE).exists():
        return _of_home(default, key)
    raise NoServerError(
        f"no server is known: start one with `inn-automl up --detach`, or give --home, --url and "
        f"--key, or set "
        f"{URL_VARIABLE} and {KEY_VARIABLE}."
    )


def _of_home(home: Path, key: str | None) -> Location:
    address = _entry(home, ADDRESS_FILE, "url")
    return Location(address.rstrip("/"), key or _entry(home, SECRETS_FILE, "user_key"))


def _entry(home: Path, name: str, entry: str) -> str:
    try:
        value: Any = read_json(home / name)
    except FileNotFoundError:
        message = (
            f"no stack runs at {str(home)!r}: start it with `inn-automl up --home {home} --detach`."
        )
        raise NoServerError(message) from None
    except PermissionError:
        message = (
            f"{str(home / name)!r} may be read by its owner only: give --url and a --key of your "
            f"own."
        )
        raise NoServerError(message) from None
    if not isinstance(value, dict) or not isinstance(value.get(entry), str):
        message = (
            f"{str(home / name)!r} lacks {entry!r}: start the stack again with `inn-automl up "
            f"--home {home}`."
        )
        raise NoServerError(message)
    found: str = value[entry]
    return found


def _needed(key: str | None) -> str:
    if not key:
        raise AuthenticationError(
            f"the server was named without a key: give --key, or set {KEY_VARIABLE}."
        )
    return key
