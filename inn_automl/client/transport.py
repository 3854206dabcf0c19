"""Requests that are made again when the connection breaks or the service says that it is busy."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from inn_automl import __version__
from inn_automl.core.errors import ConnectionLostError, NoServerError
from inn_automl.http.problems import error_of

TRY_AGAIN = {429, 502, 503, 504}
FIRST_DELAY_S, MAX_DELAY_S = 0.25, 10.0
CONNECT_S, SILENCE_S = 10.0, 60.0
"""Seconds to wait for a connection, and for the next byte of an answer."""
LOCAL_HOSTS = {"127.0.0.1", "::1", "localhost"}

Content = Callable[[], Iterable[bytes]]
"""Makes a request's body, anew for each attempt."""


class Backoff:
    """Delays that double, with some jitter, until `patience_s` have gone by without a success."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.succeeded()

    def succeeded(self) -> None:
        self._delay_s, self._since_s = FIRST_DELAY_S, time.monotonic()

    def wait(self, at_least_s: float = 0.0) -> bool:
        """Waits before another attempt; False, at once, where patience has ended."""
        delay_s = max(at_least_s, self._delay_s * random.uniform(0.75, 1.25))
        if time.monotonic() + delay_s - self._since_s > self._patience_s:
            return False
        time.sleep(delay_s)
        self._delay_s = min(MAX_DELAY_S, 2 * self._delay_s)
        return True


class Transport:
    """HTTP to one coordinator with one key.

    Args:
        patience_s: how long a request is tried before it is given up.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.patience_s = url.rstrip("/"), patience_s
        try:
            host = httpx.URL(self.url).host
            self._http = httpx.Client(
                base_url=f"{self.url}/v1",
                headers={
                    "Authorization": f"Bearer {key}",
                    "User-Agent": f"inn-automl/{__version__}",
                },
                timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
                trust_env=host not in LOCAL_HOSTS,
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise NoServerError(
                f"{url!r} is no URL ({error}): give one such as http://127.0.0.1:8080."
            ) from None

    def close(self) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Any = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
    ) -> httpx.Response:
        """The answer to a request, its body read. A POST without an Idempotency-Key is made again
        only where it cannot have arrived.

        Raises:
            RefusedError: an answer of status 4xx.
            ServiceError: one of status 5xx that did not pass.
            ConnectionLostError: no answer within the patience.
        """
        repeatable = method != "POST" or "Idempotency-Key" in (headers or {})
        backoff = Backoff(self.patience_s)
        while True:
            body = content() if content else None
            try:
                response = self._http.request(
                    method, path, params=params, json=json, headers=headers, content=body
                )
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise NoServerError(
                    f"{self.url!r} is no URL that can be asked ({error}): give one such as "
                    f"http://127.0.0.1:8080."
                ) from None
            except httpx.TransportError as error:
                never_sent = isinstance(
                    error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout
                )
                if not (repeatable or never_sent) or not backoff.wait():
                    raise self.lost(error) from error
                continue
            if response.status_code in TRY_AGAIN and backoff.wait(retry_after_s(response)):
                continue
            if response.is_error:
                raise error_of(response)
            return response

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Any = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float = SILENCE_S,
    ) -> Iterator[httpx.Response]:
        """The answer to one GET, its body not read yet; tried once.

        Raises:
            RefusedError: an answer of status 4xx.
            ServiceError: one of status 5xx or 429; `retry_after_s` reads how long to wait.
            httpx.TransportError: the connection broke.
        """
        timeout = httpx.Timeout(silence_s, connect=CONNECT_S)
        with self._http.stream(
            "GET", path, params=params, headers=headers, timeout=timeout
        ) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            yield response

    def lost(self, error: httpx.TransportError) -> ConnectionLostError:
        reason = str(error) or type(error).__name__
        return ConnectionLostError(
            f"no answer from {self.url} ({reason}): check that the server runs and can be reached, "
            f"then try again."
        )


def retry_after_s(response: httpx.Response) -> float:
    """Seconds that an answer asks to wait (its Retry-After), 0 where it does not say."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
