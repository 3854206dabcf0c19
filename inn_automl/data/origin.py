"""Where the file of a dataset came from, for machines that do not have it."""

from __future__ import annotations

import os

_urls: dict[str, str] = {}


def register_origin(source: str, url: str) -> None:
    """Remembers that the file at `source` lies at `url`, too (as `remote.fetch` takes it)."""
    _urls[os.path.abspath(source)] = url


def origin_of(source: str) -> str | None:
    """The URL of the file at `source`; None where none was registered."""
    return _urls.get(os.path.abspath(source))
