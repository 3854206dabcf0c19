"""Whether the weights of a library can be had: from its cache, or from its hub."""

from __future__ import annotations

import functools

import httpx

from inn_automl.core.errors import InputError

_TIMEOUT_S = 5.0


@functools.lru_cache(maxsize=8)
def is_reachable(url: str) -> bool:
    """Whether a hub answers at all, asked once a process.

    Libraries try again for a minute where there is no network.
    """
    try:
        httpx.head(url, timeout=_TIMEOUT_S, follow_redirects=False)
    except httpx.HTTPError:
        return False
    return True


def unavailable(model: str, hub: str, cache: str, reason: object = "") -> InputError:
    """The error of weights that cannot be had.

    Args:
        model: as the user writes it.
        hub: URL.
        cache: folder in which the library keeps what it downloaded.
        reason: of the failure, if it is not that the hub cannot be reached.
    """
    why = str(reason).strip().splitlines()[0][:200] if str(reason).strip() else ""
    return InputError(
        f"the weights of model {model!r} cannot be had: they are not in {cache}, and "
        f"{f'{hub} gave none ({why})' if why else f'{hub} cannot be reached'}. Give a file "
        "(--weights FILE), fill that folder where there is a network, or train from nothing "
        "(--weights none)."
    )
