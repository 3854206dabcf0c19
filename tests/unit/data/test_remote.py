"""Datasets by URL: whole or not at all, fetched once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from inn_automl.core.errors import DatasetFormatError, DatasetNotFoundError
from inn_automl.core.home import CACHE_DIR_VARIABLE
from inn_automl.data import load_dataset
from inn_automl.data.remote import is_url


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def content(make: Any, zipped: Callable[..., Path]) -> bytes:
    return zipped(make.classes("a", "b", count=5)).read_bytes()


@pytest.fixture
def web(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server whose `/pets.zip` is whole and whose `/half.zip` ends in the middle; and what was
    asked of it.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head()

        def do_GET(self) -> None:
            if self._head():
                half = self.path.startswith("/half")
                self.wfile.write(content[: len(content) // 2] if half else content)

        def _head(self) -> bool:
            asked.append(f"{self.command} {self.path}")
            known = self.path in ("/pets.zip", "/half.zip")
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)) if known else "0")
            self.send_header("ETag", '"1"')
            self.end_headers()
            return known

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_http(web: tuple[str, list[str]]) -> None:
    address, asked = web
    dataset = load_dataset(f"{address}/pets.zip")
    assert (dataset.name, len(dataset)) == ("pets", 10)
    load_dataset(f"{address}/pets.zip")
    assert asked.count("GET /pets.zip") == 1
    with pytest.raises(DatasetFormatError, match=r"half.zip' ended in the middle.*: try again"):
        load_dataset(f"{address}/half.zip")
    with pytest.raises(DatasetNotFoundError, match=r"nothing at .*none.zip"):
        load_dataset(f"{address}/none.zip")
    with pytest.raises(DatasetFormatError, match="could not be reached"):
        load_dataset("http://127.0.0.1:9/pets.zip")


def test_a_hash_is_verified(web: tuple[str, list[str]], content: bytes) -> None:
    address, _ = web
    good = hashlib.sha256(content).hexdigest()
    assert len(load_dataset(f"{address}/pets.zip#sha256={good}")) == 10
    with pytest.raises(DatasetFormatError, match=f"hashes to {good}, not 00"):
        load_dataset(f"{address}/pets.zip#sha256={'0' * 64}")
    with pytest.raises(DatasetFormatError, match="write #sha256="):
        load_dataset(f"{address}/pets.zip#part")


def test_file_systems(content: bytes, tmp_path: Path, make: Any) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/pets.zip", content)
    first = load_dataset("memory://bucket/pets.zip")
    (tmp_path / "copy.zip").write_bytes(content)
    assert load_dataset(f"file://{tmp_path}/copy.zip").fingerprint == first.fingerprint
    for name, image in make.classes("a", "b", count=5).items():
        system.pipe(f"/bucket/folder/{name}", image)
    folder = load_dataset("memory://bucket/folder")
    np.testing.assert_array_equal(folder.x, first.x)
    with pytest.raises(DatasetNotFoundError, match="nothing at"):
        load_dataset("memory://bucket/none.zip")
    with pytest.raises(DatasetFormatError, match="could not be read"):
        load_dataset("nosuch://bucket/none.zip")


def test_a_newer_file_is_fetched_again(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(content)
    first = load_dataset(f"file://{path}")
    path.write_bytes(content + b"\0" * 10)
    assert load_dataset(f"file://{path}").fingerprint == first.fingerprint
    assert is_url("s3://a/b") and not is_url("C:/a") and not is_url("a/b")
