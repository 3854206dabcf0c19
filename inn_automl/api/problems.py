"""Error bodies: `application/problem+json` (RFC 9457) with a stable code."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """One error. `code` is that of its exception class; `detail` names the error, the value and the
    hint.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    """`urn:inn-automl:problem:CODE`."""
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None
    """All errors of an invalid request, each with its location (`loc`) and message (`msg`)."""
