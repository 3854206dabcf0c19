"""Files of the storage as answers: verified, resumable by byte range, never held in memory.

Ranges and conditions as in RFC 9110, sections 13 and 14: one range; a request for several gets the
whole file.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping

from fastapi import Response
from fastapi.responses import StreamingResponse

from inn_automl.core.errors import CorruptFileError, RangeError
from inn_automl.core.object_store import ObjectStore

MAX_REMEMBERED = 100_000
_RANGE = re.compile(r"bytes=\s*(\d*)-(\d*)\s*", re.ASCII)


class _Verified:
    """Set of the files that this process has verified."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str, str]] = set()

    def check(self, store: ObjectStore, path: str, sha256: str) -> None:
        """Reads a file through, the first time.

        Raises:
            StorageError: it is missing or cannot be read.
            CorruptFileError: it is not what was written.
        """
        mark = (store.url, path, sha256)
        with self._lock:
            if mark in self._seen:
                return
        digest = hashlib.sha256()
        for chunk in store.chunks(path):
            digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise CorruptFileError(
                f"{path!r} in the storage is not what was written (its hash differs): restore it "
                f"from a copy, or run "
                "the job again."
            )
        with self._lock:
            if len(self._seen) >= MAX_REMEMBERED:
                self._seen.clear()
            self._seen.add(mark)


_verified = _Verified()


def send(
    store: ObjectStore,
    path: str,
    *,
    sha256: str,
    size_bytes: int,
    media_type: str,
    request_headers: Mapping[str, str],
    filename: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that holds a file, or what a range or a condition asks for of it.

    Args:
        filename: what it is saved as; None for something that is looked at.

    Raises:
        RangeError: the range begins behind the end of the file.
        StorageError, CorruptFileError: the file is missing, or is not what was written.
    """
    etag = f'"{sha256}"'
    answer_headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        **(headers or {}),
    }
    if _is_current(request_headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=answer_headers)
    if filename is not None:
        answer_headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    _verified.check(store, path, sha256)
    span = None
    if request_headers.get("if-range", etag) == etag:
        span = parse_range(request_headers.get("range"), size_bytes)
    start, end = span or (0, size_bytes)
    answer_headers["Content-Length"] = str(end - start)
    if span:
        answer_headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    return StreamingResponse(
        store.chunks(path, start=start, end=end),
        206 if span else 200,
        headers=answer_headers,
        media_type=media_type,
    )


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First byte and the one after the last of a `Range` header; None where all is to be sent.

    Raises:
        RangeError: there is no such part of the file.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not any(found.groups()):
        return None
    # No file has a size of more digits; int() refuses thousands of them.
    first, last = (min(int(text[:30]), size_bytes) if text else None for text in found.groups())
    if first is None:
        start, end = size_bytes - (last or 0), size_bytes
    else:
        start, end = first, size_bytes if last is None else min(last + 1, size_bytes)
        if last is not None and int(found[2][:30]) < int(found[1][:30]):
            return None  # not a range at all
    if start >= size_bytes:
        raise RangeError(
            f"{header!r:.80} asks for nothing of {size_bytes} bytes.", size_bytes=size_bytes
        )
    return start, end


def _is_current(header: str | None, etag: str) -> bool:
    """Returns whether an `If-None-Match` names the file as it is."""
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or tags == ["*"]
