"""Samples on disk: decoded once, in shards that all processes of a machine read.

A cache holds a folder for each pair of a source and a preprocessing, named after the hash of both.
"""

from __future__ import annotations

from inn_automl.data.cache.build import (
    CachedSamples,
    Produced,
    cached_samples,
    produced_in_memory,
)
from inn_automl.data.cache.describe import described
from inn_automl.data.cache.folder import CACHE_MAX_BYTES_VARIABLE, key_of
from inn_automl.data.cache.shards import ShardedArray

__all__ = [
    "CACHE_MAX_BYTES_VARIABLE",
    "CachedSamples",
    "Produced",
    "ShardedArray",
    "cached_samples",
    "described",
    "key_of",
    "produced_in_memory",
]
