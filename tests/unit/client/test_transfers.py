"""Files to and from the service, over connections that break."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from inn_automl.client import (
    Client,
)
from inn_automl.client.client import dataset_name
from inn_automl.core.errors import CorruptFileError, DatasetNotFoundError
from tests.unit.client.client_answers import (
    DATASET,
    Answer,
    client_of,
    no_sleep,
    problem,
)


class FileServer(BaseHTTPRequestHandler):
    """Serves `content`, but breaks off after each of the lengths in `cuts`."""

    content = b""
    cuts: list[int]
    ranges: list[str | None]
    etag: str | None = None

    def do_GET(self) -> None:
        self.ranges.append(self.headers.get("Range"))
        start = 0
        if (asked := self.headers.get("Range")) and self.headers.get("If-Range") == self._etag():
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", self._etag())
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        until = start + self.cuts.pop(0) if self.cuts else len(self.content)
        self.wfile.write(self.content[start:until])
        self.close_connection = True

    def _etag(self) -> str:
        return f'"{self.etag or hashlib.sha256(self.content).hexdigest()}"'

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def file_server() -> Iterator[tuple[type[FileServer], str]]:
    handler = type("Handler", (FileServer,), {"cuts": [], "ranges": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_was_cut_goes_on_where_it_broke(
    file_server: tuple[type[FileServer], str], tmp_path: Path
) -> None:
    handler, url = file_server
    handler.content = bytes(range(256)) * 20_000
    handler.cuts = [2_000_000, 100, 0]
    progress: list[tuple[int, int | None]] = []
    with Client(url, "inn_key", sleep=no_sleep) as client:
        file = client.download(
            "job_1",
            tmp_path / "new" / "model.zip",
            device="laptop",
            on_progress=lambda *now: progress.append(now),
        )
    assert file.path.read_bytes() == handler.content
    assert file.sha256 == hashlib.sha256(handler.content).hexdigest()
    assert file.size_bytes == len(handler.content)
    starts = [
        int(asked.removeprefix("bytes=").removesuffix("-")) for asked in handler.ranges if asked
    ]
    assert starts[:1] == [2_000_000] and starts == sorted(starts)
    assert progress[-1] == (len(handler.content), len(handler.content))
    assert [path.name for path in file.path.parent.iterdir()] == ["model.zip"]


def test_a_file_that_changed_meanwhile_is_read_from_its_start(
    file_server: tuple[type[FileServer], str], tmp_path: Path
) -> None:
    handler, url = file_server
    handler.content, handler.cuts = b"old" * 1000, [1500]

    def change(seconds: float) -> None:
        handler.content = b"new" * 900

    with Client(url, "inn_key", sleep=change) as client:
        assert client.download_inn("job_1", tmp_path / "inn.zip").path.read_bytes() == b"new" * 900


def test_the_elastic_model_of_a_job_is_downloaded(
    file_server: tuple[type[FileServer], str], tmp_path: Path
) -> None:
    handler, url = file_server
    handler.content = b"all points"
    with Client(url, "inn_key") as client:
        file = client.download_elastic("job_1", tmp_path / "elastic.zip")
    assert file.path.read_bytes() == b"all points"
    assert file.sha256 == hashlib.sha256(b"all points").hexdigest()


def test_a_download_that_does_not_match_its_hash_does_not_appear(
    file_server: tuple[type[FileServer], str], tmp_path: Path
) -> None:
    handler, url = file_server
    handler.content, handler.etag = b"tampered", "0" * 64
    (tmp_path / "model.zip").write_bytes(b"before")
    with (
        Client(url, "inn_key") as client,
        pytest.raises(CorruptFileError, match="download it again"),
    ):
        client.download_bundle("job_1", tmp_path / "model.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    assert (tmp_path / "model.zip").read_bytes() == b"before"


def uploads(known: str | None = None) -> tuple[Answer, list[httpx.Request]]:
    """A server that has the content with the hash `known`, and whose first upload breaks."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        if request.method == "GET":
            items = [{**DATASET, "sha256": known}] if known else []
            return httpx.Response(200, json={"items": items, "next_cursor": None})
        seen.append(request)
        if len(seen) == 1:
            raise httpx.WriteError("broken pipe")
        return httpx.Response(201, json={**DATASET, "name": request.url.params["name"]})

    return answer, seen


def test_a_folder_is_uploaded_as_the_same_zip_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "my cats"
    for name in ("b/2.png", "a/1.png", "a/deep/0.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    answer, seen = uploads()
    progress: list[tuple[int, int | None]] = []
    dataset = client_of(answer).upload_dataset(
        folder, on_progress=lambda *now: progress.append(now)
    )
    assert dataset.name == "my-cats"
    first, second = seen
    assert first.content == second.content
    assert second.url.path == f"/v1/datasets/content/{hashlib.sha256(second.content).hexdigest()}"
    assert second.headers["Content-Length"] == str(len(second.content))
    assert progress[-1] == (len(second.content), len(second.content))
    packed = tmp_path / "sent.zip"
    packed.write_bytes(second.content)
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["a/1.png", "a/deep/0.png", "b/2.png"]
        assert archive.read("b/2.png") == b"b/2.png"
    (folder / "a/1.png").touch()
    again, resent = uploads()
    client_of(again).upload_dataset(folder)
    assert resent[-1].content == second.content


def test_content_that_is_there_is_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "cats.npz"
    path.write_bytes(b"content")
    answer, seen = uploads(known=hashlib.sha256(b"content").hexdigest())
    assert client_of(answer).upload_dataset(path).id == "ds_1"
    assert not seen


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no file or folder at .*cats\.zip"):
        client_of(lambda request: problem(500)).upload_dataset(tmp_path / "cats.zip")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("cats.npz", "cats"),
        ("my cats (2).zip", "my-cats-2-"),
        ("_a.zip", "a"),
        ("çà.zip", "dataset"),
        ("x" * 80, "x" * 64),
    ],
)
def test_names_are_made_of_file_names(file: str, name: str) -> None:
    assert dataset_name(Path(file)) == name
