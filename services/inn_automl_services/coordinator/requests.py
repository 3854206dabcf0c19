"""Middleware around every request: an id, a log line, a limit on its body, and metrics."""

from __future__ import annotations

import logging
import re
import time

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inn_automl.core.errors import TooLargeError
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.json_logs import fields
from inn_automl_services.coordinator.problems import CATALOG, problem_response
from inn_automl_services.coordinator.settings import Settings

logger = logging.getLogger(__name__)

REPORT_FACTOR = 64
"""Results of workers and agents carry raw samples: they may be this many times larger."""
PREFIX = "/v1"
_REPORTS = (f"{PREFIX}/runs/", f"{PREFIX}/measurements/")
_UPLOADS = f"{PREFIX}/datasets/content/"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_requests = Counter("inn_automl_requests", "Requests answered.", ("method", "route", "status"))
_seconds = Histogram(
    "inn_automl_request_seconds", "Time until an answer was sent.", ("method", "route")
)


class RequestLimits:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._limited(scope, receive, answer)
        except Exception as error:
            # Answered here and not further out, so that this answer too carries the request's id.
            handler = scope["app"].exception_handlers.get(Exception)
            if status or handler is None:
                raise
            response = await handler(Request(scope), error)
            await response(scope, receive, answer)
        finally:
            _record(scope, status, time.perf_counter() - started)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit_bytes(scope["path"])
        detail = f"the body is larger than the limit of {limit:,} bytes: send less."
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > limit:
            await problem_response(Request(scope), CATALOG[TooLargeError], detail)(
                scope, receive, send
            )
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # the one kind that FastAPI lets pass while it reads a body
                raise HTTPException(413, detail)
            return message

        await self._app(scope, counted, send)

    def _limit_bytes(self, path: str) -> int:
        if path.startswith(_UPLOADS):
            return self._settings.max_upload_bytes
        return self._settings.max_body_bytes * (REPORT_FACTOR if path.startswith(_REPORTS) else 1)


def _record(scope: Scope, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = _template(scope)
    _requests.labels(method, route, status).inc()
    _seconds.labels(method, route).observe(seconds)
    extra = fields(
        method=method,
        path=scope["path"],
        status=status,
        ms=round(seconds * 1e3, 2),
        request_id=scope["state"]["request_id"],
        job_id=(scope.get("path_params") or {}).get("job_id"),
        project=scope["state"].get("project"),
    )
    logger.info("request", extra=extra)


def _template(scope: Scope) -> str:
    """The route's path with its parameters' names: a label must not grow with the requests."""
    template: str | None = getattr(scope.get("route"), "path", None)
    if template is None:
        return "unmatched"
    # A route of an included router does not know the prefix that it was included under.
    return f"{PREFIX}{template}" if scope["path"].startswith(f"{PREFIX}/") else template
