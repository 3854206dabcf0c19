"""A device agent's requests, made again until the coordinator answers."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from inn_automl import __version__
from inn_automl.core.errors import NoServerError
from inn_automl.http.problems import error_of, problem_of

logger = logging.getLogger(__name__)

FIRST_DELAY_S, MAX_DELAY_S = 0.5, 30.0
CONNECT_S, SILENCE_S = 10.0, 60.0
_LOCAL_HOSTS = {"127.0.0.1", "::1", "localhost"}
_TRANSIENT = {408, 425, 429}


class Link:
    """HTTP to one coordinator with one key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        try:
            host = httpx.URL(self.url).host
            self._http = httpx.Client(
                base_url=f"{self.url}/v1",
                headers={
                    "Authorization": f"Bearer {key}",
                    "User-Agent": f"inn-automl-agent/{__version__}",
                },
                timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
                trust_env=host not in _LOCAL_HOSTS,
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise NoServerError(
                f"{url!r} is no URL ({error}): give one such as http://127.0.0.1:8080."
            ) from None

    def close(self) -> None:
        self._http.close()

    def once(
        self, method: str, path: str, *, timeout_s: float = CONNECT_S, **content: Any
    ) -> httpx.Response:
        """The answer to a request that is made once.

        Raises:
            InnAutomlError: the coordinator refused; the class is that of its code.
            httpx.TransportError: no answer, or one that says to try again.
        """
        try:
            return _answer(self._http.request(method, path, timeout=timeout_s, **content))
        except httpx.UnsupportedProtocol as error:
            raise NoServerError(
                f"{self.url!r} is no URL that can be asked ({error}): begin with http://."
            ) from None

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        """The answer to a request that is made again, less and less often, until there is one.

        Raises:
            InnAutomlError: the coordinator refused; the class is that of its code.
        """
        delay_s, since = FIRST_DELAY_S, None
        while True:
            try:
                response = self.once(method, path, timeout_s=SILENCE_S, **content)
            except httpx.TransportError as error:
                if since is None:
                    since = time.monotonic()
                    logger.warning(
                        "no answer from %s (%s): trying until there is one",
                        self.url,
                        _reason(error),
                    )
                time.sleep(delay_s * random.uniform(0.75, 1.25))
                delay_s = min(MAX_DELAY_S, 2 * delay_s)
            else:
                if since is not None:
                    logger.info("%s answers again after %.0f s", self.url, time.monotonic() - since)
                return response

    def download(self, path: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        """The bytes behind a GET, continued nowhere: a broken connection raises.

        Raises:
            InnAutomlError: the coordinator refused; the class is that of its code.
            httpx.TransportError: the connection broke.
        """
        with self._http.stream("GET", path, headers=headers) as response:
            if response.is_error:
                response.read()
            yield from _answer(response).iter_bytes()


def _answer(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    if problem_of(response) is None:
        # Not a coordinator's words: a proxy whose coordinator is being restarted may say anything.
        raise httpx.RemoteProtocolError(f"status {response.status_code}, not from a coordinator")
    error = error_of(response)
    if response.status_code >= 500 or response.status_code in _TRANSIENT:
        raise httpx.RemoteProtocolError(str(error))
    raise error


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
