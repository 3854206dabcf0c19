"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_lock = threading.Lock()
_last_ms = 0
_last_random = 0


def new_id(prefix: str) -> str:
    """`prefix_` and a ULID: 48 bits of milliseconds and 80 random ones; of one process, always
    larger than the last.
    """
    global _last_ms, _last_random
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms:
            _last_ms, _last_random = now_ms, secrets.randbits(80)
        else:
            _last_random += 1 + secrets.randbits(32)
        value = _last_ms << 80 | _last_random & (1 << 80) - 1
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
