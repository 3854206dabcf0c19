"""Models on the agent's disk: whole, verified, of limited size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inn_automl.agent.model_cache import ModelCache
from inn_automl.api.measurements import ModelFile
from inn_automl.core.errors import (
    CorruptFileError,
    StorageError,
)

CONTENT = b"a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODELS = {"m": ModelFile(sha256=SHA256, size_bytes=len(CONTENT))}


def test_cache_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, 25)
    contents = {hashlib.sha256(bytes([i]) * 10).hexdigest(): bytes([i]) * 10 for i in range(3)}
    fetched = []

    def fetch(sha256: str) -> list[bytes]:
        fetched.append(sha256)
        return [contents[sha256]]

    hashes = list(contents)
    for index in (0, 1, 0, 2, 0, 1):
        model = {"m": ModelFile(sha256=hashes[index], size_bytes=10)}
        assert cache.collect(model, fetch)["m"].read_bytes() == contents[hashes[index]]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 25
    assert [hashes.index(sha256) for sha256 in fetched] == [0, 1, 2, 1]


def test_cache_has_room_for_what_is_measured_now(tmp_path: Path) -> None:
    assert (
        ModelCache(tmp_path, 0).collect(MODELS, lambda sha256: [CONTENT])["m"].read_bytes()
        == CONTENT
    )


def test_cache_leaves_the_download_of_another_agent_alone(tmp_path: Path) -> None:
    other = {"m": ModelFile(sha256=hashlib.sha256(b"other").hexdigest(), size_bytes=5)}
    abandoned = tmp_path / ".abandoned.part"
    abandoned.write_bytes(b"a mod")
    os.utime(abandoned, (0, 0))

    def fetch(sha256: str) -> Iterator[bytes]:
        ModelCache(tmp_path, 100).collect(other, lambda sha256: [b"other"])
        yield CONTENT

    assert ModelCache(tmp_path, 100).collect(MODELS, fetch)["m"].read_bytes() == CONTENT
    assert not abandoned.exists()


@pytest.mark.parametrize("content", [b"another", b"a model and more", b""])
def test_cache_takes_only_what_the_hash_says(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CorruptFileError):
        ModelCache(tmp_path, 100).collect(MODELS, lambda sha256: [content])
    assert list(tmp_path.iterdir()) == []


def test_cache_notices_damage(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, 100)
    (path,) = cache.collect(MODELS, lambda sha256: [CONTENT]).values()
    path.write_bytes(b"damaged")
    assert cache.collect(MODELS, lambda sha256: [CONTENT])["m"].read_bytes() == CONTENT


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="another --cache"):
        ModelCache(tmp_path / "file", 100).collect(MODELS, lambda sha256: [CONTENT])
