"""Datasets by URL: only from where the settings allow it, and never further."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

import fsspec
import httpx

from inn_automl.api.datasets import FILENAME_PATTERN, KINDS_OF_FILES
from inn_automl.core.errors import (
    DatasetNotFoundError,
    ForbiddenError,
    InputError,
    UnavailableError,
)
from inn_automl_services.coordinator.datasets.incoming import Incoming
from inn_automl_services.coordinator.settings import Settings

CHUNK_BYTES = 1 << 20
CONNECT_S, READ_S = 10, 60
FILENAME = re.compile(FILENAME_PATTERN)


def check_url(url: str, roots: tuple[str, ...]) -> str:
    """The file name that an allowed URL ends with.

    Raises:
        InputError: it is malformed, or names no file of a kind that is read.
        ForbiddenError: it lies under none of the roots.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(
            f"the URL {url!r:.200} is malformed ({error}): write it as https://HOST/FILE.npz."
        ) from None
    path = unquote(parts.path)
    # Whatever another reader might take for something else than what was compared with the roots.
    is_odd = (
        any(character in url for character in "\\\0#")
        or re.search(r"[\x00-\x20\x7f-\uffff%]", path)
        or "//" in path
    )
    if (
        not parts.scheme
        or is_odd
        or parts.username is not None
        or any(part in (".", "..") for part in path.split("/"))
    ):
        raise InputError(
            f"the URL {url!r:.200} is malformed: write it as SCHEME://HOST/PATH/FILE, without "
            f"user, '..' or blanks."
        )
    if not any(_is_under(parts, port, path, urlsplit(root)) for root in roots):
        allowed = ", ".join(roots) if roots else "nowhere: upload the file instead"
        raise ForbiddenError(f"datasets may not be read from {url!r:.200}; allowed is {allowed}.")
    filename = PurePosixPath(path).name
    if not FILENAME.fullmatch(filename):
        raise InputError(f"the URL {url!r:.200} names no dataset: give one of {KINDS_OF_FILES}.")
    return filename


def _is_under(parts: SplitResult, port: int | None, path: str, root: SplitResult) -> bool:
    folder = unquote(root.path).rstrip("/") + "/"
    same_origin = (parts.scheme, parts.hostname, port) == (root.scheme, root.hostname, root.port)
    return same_origin and (path.startswith(folder) or path == folder.rstrip("/"))


def fetch(url: str, target: Incoming, settings: Settings) -> None:
    """Copies what a checked URL names.

    Raises:
        DatasetNotFoundError: nothing is there.
        ForbiddenError: it leads elsewhere.
        TooLargeError: more bytes than the limit.
        UnavailableError: its server does not answer, or too slowly.
    """
    until = time.monotonic() + settings.upload_seconds
    chunks = (
        _http(url)
        if url.startswith(("http://", "https://"))
        else _file_system(url, settings.allowed_dataset_roots)
    )
    for chunk in chunks:
        target.write(chunk)
        if time.monotonic() > until:
            raise UnavailableError(
                f"{url!r:.200} was not read within {settings.upload_seconds:g} s: try again later."
            )


def _http(url: str) -> Iterator[bytes]:
    try:
        with (
            httpx.Client(
                follow_redirects=False, timeout=httpx.Timeout(READ_S, connect=CONNECT_S)
            ) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.is_redirect:
                raise ForbiddenError(
                    f"{url!r:.200} leads to another address, which is not followed: give that one."
                )
            if response.status_code >= 500:
                raise UnavailableError(
                    f"{url!r:.200} was answered with status {response.status_code}: try again "
                    f"later."
                )
            if response.status_code != 200:
                raise DatasetNotFoundError(
                    f"{url!r:.200} was answered with status {response.status_code}: correct it."
                )
            yield from response.iter_raw(CHUNK_BYTES)
    except httpx.InvalidURL as error:
        raise InputError(f"the URL {url!r:.200} is malformed ({error}).") from None
    except httpx.HTTPError as error:
        raise UnavailableError(
            f"{url!r:.200} could not be read ({type(error).__name__}): try again later."
        ) from error


def _file_system(url: str, roots: tuple[str, ...]) -> Iterator[bytes]:
    try:
        fs, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"the URL {url!r:.200} cannot be read ({error}).") from None
    if urlsplit(url).scheme in ("file", "local") and not _stays_inside(path, roots):
        raise ForbiddenError(f"{url!r:.200} is a link that leads elsewhere: give the file itself.")
    try:
        with fs.open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise DatasetNotFoundError(
            f"there is no readable file at {url!r:.200}: correct it."
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"{url!r:.200} could not be read ({type(error).__name__}): try again later."
        ) from error


def _stays_inside(path: str, roots: tuple[str, ...]) -> bool:
    folders = [
        Path(unquote(urlsplit(root).path)).resolve()
        for root in roots
        if root.startswith(("file:", "local:"))
    ]
    return any(Path(path).resolve().is_relative_to(folder) for folder in folders)
