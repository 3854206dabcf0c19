"""Requests to one coordinator with one key, retried by one policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from inn_automl.core.errors import ConnectionLostError, NoServerError
from inn_automl.core.version import __version__
from inn_automl.http.problems import error_of, problem_of
from inn_automl.http.retries import RetryPolicy, reason_of

CONNECT_TIMEOUT_S = 10.0
LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

Content = Callable[[], Iterable[bytes]]
"""Makes a request's body; called for each attempt."""


class Connection:
    """HTTP to one coordinator with one key.

    Args:
        url: of the coordinator, e.g. `http://127.0.0.1:8080`.
        key: an API key, or the lease token of a run.
        retry: how requests are retried.
        read_timeout_s: seconds to wait for the next byte of an answer.
        user_agent: name of the program, for the coordinator's log.
        uses_proxies: whether the environment's proxies are used; None: not for this machine.
        transport: sends the requests in place of the network, e.g. in a test.

    Raises:
        NoServerError: `url` is no URL.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retry: RetryPolicy | None = None,
        read_timeout_s: float = 60.0,
        user_agent: str = "inn-automl",
        uses_proxies: bool | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.retry = url.rstrip("/"), retry or RetryPolicy()
        self._timeout = httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            host = httpx.URL(self.url).host
            self._http = httpx.Client(
                base_url=f"{self.url}/v1",
                headers={
                    "Authorization": f"Bearer {key}",
                    "User-Agent": f"{user_agent}/{__version__}",
                },
                timeout=self._timeout,
                trust_env=host not in LOCAL_HOSTS if uses_proxies is None else uses_proxies,
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _no_url(url, error) from None

    def close(self) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        is_repeatable: bool | None = None,
        retry: RetryPolicy | None = None,
        timeout_s: float | None = None,
        on_retry: Callable[[str], None] = lambda reason: None,
        content: Content | None = None,
        **more: Any,
    ) -> httpx.Response:
        """The answer to a request, its body read.

        Args:
            is_repeatable: whether it does no harm if the request arrives twice; by default for all
                but a POST without an Idempotency-Key.
            retry: in place of the connection's policy.
            timeout_s: seconds to wait for an answer, in place of the connection's.
            on_retry: called with the reason before each delay.
            more: `params`, `json` and `headers`, as `httpx.Client.request` takes them.

        Raises:
            RefusedError: an answer of status 4xx; the class is that of the answer's code.
            InnAutomlError: one of status 5xx that did not pass, likewise.
            ConnectionLostError: no answer within the deadline.
            NoServerError: the URL cannot be used.
        """
        retry = retry or self.retry
        if is_repeatable is None:
            is_repeatable = method != "POST" or "Idempotency-Key" in (more.get("headers") or {})
        if timeout_s is not None:
            more["timeout"] = timeout_s

        def send() -> httpx.Response:
            body = content() if content else None
            return self._http.request(method, path, content=body, **more)

        try:
            response = retry.retrying(is_repeatable=is_repeatable, on_retry=on_retry)(send)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise _no_url(self.url, error) from None
        except httpx.TransportError as error:
            raise self.lost(error) from error
        if retry.is_unattended and retry.retries_answer(response):
            problem = problem_of(response)
            raise self._lost(problem.detail if problem else f"status {response.status_code}")
        if response.is_error:
            raise error_of(response)
        return response

    def request_once(self, method: str, path: str, **more: Any) -> httpx.Response:
        """`request` with a single attempt."""
        retry = dataclasses.replace(self.retry, deadline_s=0.0, first_delay_s=1.0)
        return self.request(method, path, retry=retry, **more)

    @contextmanager
    def stream(
        self, path: str, *, params: Any = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """The answer to one GET, its body not read yet; a single attempt.

        Raises:
            InnAutomlError: an answer of status 400 or above.
            httpx.TransportError: the connection broke.
        """
        with self._http.stream("GET", path, params=params, headers=headers) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            yield response

    def lost(self, error: BaseException) -> ConnectionLostError:
        """The error for a connection that broke for good."""
        return self._lost(reason_of(error))

    def _lost(self, reason: str) -> ConnectionLostError:
        return ConnectionLostError(
            f"no answer from {self.url} ({reason}): check that the server runs and can be reached, "
            f"then try again."
        )


def _no_url(url: str, error: Exception) -> NoServerError:
    return NoServerError(
        f"{url!r} is no URL that can be requested ({error}): give one such as "
        f"http://127.0.0.1:8080."
    )
