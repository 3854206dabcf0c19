"""The client over connections that break, and over servers that are busy, wrong or gone."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from inn_automl.api.jobs import JobState
from inn_automl.client import (
    Client,
    ConnectionLostError,
    JobEndedError,
    Location,
    RefusedError,
    ServiceError,
    find_server,
)
from inn_automl.client.client import dataset_name
from inn_automl.core.errors import CorruptFileError, DatasetNotFoundError, InputError, SpecError
from inn_automl.core.spec import Budget, DeviceBudget, JobSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
SPEC = JobSpec(dataset="digits", budget=Budget(devices=(DeviceBudget(name="laptop"),)))
JOB = {
    "id": "job_1",
    "name": None,
    "kind": "search",
    "parent_id": None,
    "state": "queued",
    "priority": 0,
    "spec": SPEC.model_dump(mode="json"),
    "progress": None,
    "cost": {},
    "error": None,
    "attempt": 0,
    "max_attempts": 5,
    "notes": [],
    "created_at": NOW,
    "started_at": None,
    "finished_at": None,
}
DATASET = {
    "id": "ds_1",
    "name": "cats",
    "filename": "cats.zip",
    "sha256": "0" * 64,
    "size_bytes": 1,
    "source_url": None,
    "metadata": {
        "kind": "image",
        "input_shape": [1, 8, 8],
        "classes": ["a", "b"],
        "num_samples": 2,
        "class_counts": [1, 1],
        "split_sizes": {},
    },
    "created_at": NOW,
}

Answer = Callable[[httpx.Request], httpx.Response]


def no_sleep(seconds: float) -> None:
    pass


def client_of(answer: Answer, sleep: Callable[[float], Any] = no_sleep) -> Client:
    return Client(
        "http://server",
        "inn_key",
        retry_deadline_s=20.0,
        transport=httpx.MockTransport(answer),
        sleep=sleep,
    )


def problem(status: int, code: str = "some_code", **headers: str) -> httpx.Response:
    body = {
        "type": "t",
        "title": "T",
        "status": status,
        "detail": "the fault.",
        "code": code,
        "request_id": "req_1",
    }
    return httpx.Response(status, json=body, headers=headers)


def in_turn(*answers: httpx.Response | Exception) -> tuple[Answer, list[httpx.Request]]:
    """Gives the answers one after the other; the requests that came are in the list."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        given = answers[len(seen) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    return answer, seen


def test_a_job_is_submitted_once_however_often_it_is_sent() -> None:
    broken = httpx.ReadError("reset by peer")
    answer, seen = in_turn(broken, problem(503), httpx.Response(201, json=JOB))
    assert client_of(answer).submit(SPEC, name="first").id == "job_1"
    assert len({request.headers["Idempotency-Key"] for request in seen}) == 1
    assert all(request.headers["Authorization"] == "Bearer inn_key" for request in seen)
    sent = json.loads(seen[-1].content)
    assert (sent["name"], sent["spec"]["dataset"]) == ("first", "digits")


def test_what_may_have_arrived_is_not_sent_again_without_a_key() -> None:
    answer, seen = in_turn(httpx.ReadError("reset by peer"))
    with pytest.raises(ConnectionLostError, match="http://server"):
        client_of(answer).cancel("job_1")
    assert len(seen) == 1
    answer, seen = in_turn(httpx.ConnectError("refused"), httpx.Response(200, json=JOB))
    client_of(answer).cancel("job_1")
    assert len(seen) == 2


def test_a_busy_server_is_given_the_time_that_it_asks_for() -> None:
    pauses: list[float] = []
    answer, _ = in_turn(problem(429, **{"Retry-After": "7"}), httpx.Response(200, json=JOB))
    client_of(answer, pauses.append).job("job_1")
    assert pauses == [7.0]


def test_a_server_that_is_gone_is_told_with_its_address() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(
        ConnectionLostError, match=r"no answer from http://server \(connection refused\)"
    ):
        client_of(gone).job("job_1")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422])
def test_a_refusal_is_bad_input(status: int) -> None:
    with pytest.raises(RefusedError, match=r"^the fault\.$") as caught:
        client_of(lambda request: problem(status)).job("job_1")
    assert isinstance(caught.value, InputError)
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (
        "some_code",
        status,
        "req_1",
    )


def test_a_fault_of_the_server_names_the_request() -> None:
    with pytest.raises(ServiceError, match=r"the fault\. \(request req_1\)") as caught:
        client_of(lambda request: problem(500)).job("job_1")
    assert not isinstance(caught.value, InputError)


def test_a_newer_server_may_say_more() -> None:
    newer = {**JOB, "mood": "fine", "cost": {"wall_s": 1.0, "karma": 2}}
    assert (
        client_of(lambda request: httpx.Response(200, json=newer)).job("job_1").cost.wall_s == 1.0
    )


@pytest.mark.parametrize("body", ["<html>", "{}", '{"items": 1}', "[]"])
def test_something_else_than_a_coordinator_is_told(body: str) -> None:
    with pytest.raises(ServiceError, match="something else than a Job"):
        client_of(lambda request: httpx.Response(200, text=body)).job("job_1")
    with pytest.raises(RefusedError, match="answered 404 Not Found: check that the URL"):
        client_of(lambda request: httpx.Response(404, text=body)).job("job_1")


@pytest.mark.parametrize("url", ["ftp://server", "server", "http://a:b"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(RefusedError, match="no URL"):
        Client(url, "inn_key").job("job_1")


def test_ids_cannot_leave_their_place_in_the_path() -> None:
    answer, seen = in_turn(httpx.Response(200, json=JOB))
    client_of(answer).job("../keys?a=b")
    assert seen[0].url.raw_path == b"/v1/jobs/..%2Fkeys%3Fa%3Db"


def test_lists_are_read_page_by_page() -> None:
    summary = {
        **{
            key: JOB[key]
            for key in ("name", "kind", "parent_id", "state", "created_at", "finished_at")
        },
        **{"dataset": "digits", "devices": [], "stage": None, "fraction": 0.0},
    }
    pages = [
        {"items": [{**summary, "id": "job_3"}, {**summary, "id": "job_2"}], "next_cursor": "job_2"},
        {"items": [{**summary, "id": "job_1"}], "next_cursor": None},
    ]
    answer, seen = in_turn(*(httpx.Response(200, json=page) for page in pages))
    jobs = client_of(answer).jobs(state=JobState.QUEUED)
    assert next(jobs).id == "job_3"
    assert len(seen) == 1
    assert [job.id for job in jobs] == ["job_2", "job_1"]
    assert [dict(request.url.params).get("cursor") for request in seen] == [None, "job_2"]
    assert all(request.url.params["state"] == "queued" for request in seen)


def test_bad_arguments_are_refused_before_anything_is_sent() -> None:
    answer, seen = in_turn()
    client = client_of(answer)
    with pytest.raises(SpecError, match="name = 'a b'"):
        client.submit(SPEC, name="a b")
    with pytest.raises(SpecError, match="either widths or ratio"):
        client.discretize("job_1")
    with pytest.raises(SpecError, match=r"ratio = 1\.5"):
        client.discretize("job_1", ratio=1.5)
    for seconds in (-1.0, 3601.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="fine_tune_seconds"):
            client.discretize("job_1", ratio=0.5, fine_tune_seconds=seconds)
    assert not seen


# Events


def event(number: int, kind: str = "progress", **data: Any) -> dict[str, Any]:
    return {
        "id": number,
        "kind": kind,
        "data": data or {"stage": "training", "fraction": 0.1},
        "at": NOW,
    }


def stream(*events: dict[str, Any], breaks: bool = False) -> httpx.Response:
    def content() -> Iterator[bytes]:
        yield b": a comment\n\n"
        for one in events:
            yield f"id: {one['id']}\nevent: {one['kind']}\ndata: {json.dumps(one)}\n\n".encode()
            yield b": a comment between events\n\n"
        if breaks:
            yield b'id: 99\ndata: {"cut'
            raise httpx.ReadError("reset by peer")

    return httpx.Response(200, content=content(), headers={"Content-Type": "text/event-stream"})


def test_watching_misses_and_repeats_nothing() -> None:
    running, ended = (
        httpx.Response(200, json=JOB),
        httpx.Response(200, json={**JOB, "state": "succeeded"}),
    )
    answer, seen = in_turn(
        stream(event(1), event(2), breaks=True),
        httpx.ConnectError("refused"),
        problem(503),
        stream(event(5)),  # the server stops and says nothing of the job
        running,
        stream(event(6)),
        ended,
        stream(event(7, "state", state="succeeded")),
    )
    reasons: list[str] = []
    events = list(client_of(answer).watch("job_1", on_reconnect=reasons.append))
    assert [one.id for one in events] == [1, 2, 5, 6, 7]
    asked = [
        request.headers.get("Last-Event-ID")
        for request in seen
        if request.url.path.endswith("/events")
    ]
    assert asked == ["0", "2", "2", "2", "5", "6"]
    assert seen[-1].url.params["follow"] == "false"
    assert len(reasons) == 3


def test_watching_what_is_not_there_ends() -> None:
    with pytest.raises(RefusedError):
        list(client_of(lambda request: problem(404)).watch("job_1"))


def test_watching_gives_up_when_patience_ends() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ConnectionLostError):
        list(client_of(gone).watch("job_1", retry_deadline_s=2.0))


def test_waiting_raises_what_the_job_failed_of() -> None:
    failed = {
        **JOB,
        "state": "failed",
        "error": {"code": "training_failed", "detail": "it diverged."},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return (
            stream(event(1))
            if request.url.path.endswith("/events")
            else httpx.Response(200, json=failed)
        )

    with pytest.raises(JobEndedError, match="job job_1 failed: it diverged") as caught:
        client_of(answer).wait("job_1")
    assert caught.value.code == "training_failed"


# Files


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


# Where the server is


def make_home(folder: Path, url: str = "http://127.0.0.1:1") -> Path:
    folder.mkdir()
    (folder / "address.json").write_text(json.dumps({"url": url}), encoding="utf-8")
    (folder / "secrets.json").write_text(json.dumps({"user_key": "inn_home"}), encoding="utf-8")
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No server in the environment, and a default home that is not there."""
    for name in ("INN_AUTOML_URL", "INN_AUTOML_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INN_AUTOML_HOME", str(tmp_path / "default"))
    return tmp_path


def test_the_server_is_what_was_said_most_clearly(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RefusedError, match="inn-automl up"):
        find_server()
    make_home(nowhere / "default", "http://default")
    assert find_server() == Location("http://default", "inn_home")
    monkeypatch.setenv("INN_AUTOML_URL", "http://environment/")
    with pytest.raises(RefusedError, match="INN_AUTOML_KEY"):
        find_server()
    monkeypatch.setenv("INN_AUTOML_KEY", "inn_environment")
    assert find_server() == Location("http://environment", "inn_environment")
    home = make_home(nowhere / "home", "http://home")
    assert find_server(home) == Location("http://home", "inn_home")
    assert find_server(home, key="inn_other") == Location("http://home", "inn_other")
    assert find_server(home, "http://given", "inn_given") == Location("http://given", "inn_given")
    assert "inn_given" not in repr(find_server(None, "http://given", "inn_given"))


def test_a_home_whose_stack_does_not_run(nowhere: Path) -> None:
    with pytest.raises(RefusedError, match=r"no stack runs at .*inn-automl up --home"):
        find_server(nowhere / "home")
    home = make_home(nowhere / "home")
    (home / "secrets.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RefusedError, match="lacks 'user_key'"):
        find_server(home)
