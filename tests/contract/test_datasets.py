"""Datasets: uploaded by hash, checked apart, kept in one project."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inn_automl_services.coordinator.context import Context
from inn_automl_services.coordinator.datasets.incoming import (
    clean_abandoned,
    incoming_folder,
    receiving,
)
from inn_automl_services.coordinator.db.ids import new_id
from inn_automl_services.coordinator.db.session import Database, now
from inn_automl_services.coordinator.db.tables import JobRow
from inn_automl_services.coordinator.settings import Settings
from PIL import Image

from inn_automl.api.jobs import JobKind, JobState
from tests.contract.uploads import files, put


def npz(num_samples: int = 60, seed: int = 0, **more: Any) -> bytes:
    """A small signal dataset of three classes."""
    random = np.random.default_rng(seed)
    file = io.BytesIO()
    arrays = {
        "x": random.normal(size=(num_samples, 1, 16)).astype(np.float32),
        "y": np.arange(num_samples) % 3,
    }
    np.savez(file, **(arrays | more))
    return file.getvalue()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    roots = (f"file://{tmp_path}/allowed/", "https://data.example/sets")
    return settings.model_copy(update={"allowed_dataset_roots": roots, "max_upload_bytes": 200_000})


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def test_an_upload_is_shown_with_its_facts_and_thumbnails(access: Any, storage: Path) -> None:
    content = npz()
    made = put(access, content)
    assert made.status_code == 201, made.text
    sha256 = hashlib.sha256(content).hexdigest()
    dataset = made.json()
    assert (dataset["name"], dataset["sha256"], dataset["size_bytes"]) == (
        "waves",
        sha256,
        len(content),
    )
    metadata = dataset["metadata"]
    assert (metadata["kind"], metadata["input_shape"], metadata["classes"]) == (
        "signal",
        [1, 16],
        ["0", "1", "2"],
    )
    assert (metadata["num_samples"], metadata["class_counts"]) == (60, [20, 20, 20])
    assert metadata["split_sizes"] == {"train": 42, "validation": 9, "test": 9}
    assert metadata["num_thumbnails"] == 8
    for reference in (dataset["id"], "waves"):
        assert access.user.get(f"/v1/datasets/{reference}").json() == dataset
    assert access.user.get("/v1/datasets").json() == {"items": [dataset], "next_cursor": None}
    picture = access.user.get("/v1/datasets/waves/thumbnails/7")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (192, 96)
    stored = f"datasets/{access.project_id}/{sha256}"
    assert files(storage) == {
        f"{stored}/waves.npz",
        *(f"{stored}/thumbnails/{n}.png" for n in range(8)),
    }


def test_datasets_of_other_tasks_are_checked_and_shown(access: Any, check_problem: Any) -> None:
    random = np.random.default_rng(0)
    numbers = npz(y=random.normal(size=(60, 2)))
    metadata = put(access, numbers, "numbers").json()["metadata"]
    assert (
        metadata["task"],
        metadata["output_shape"],
        metadata["classes"],
        metadata["class_counts"],
    ) == (
        "regression",
        [2],
        [],
        [],
    )
    small = random.integers(256, size=(20, 3, 8, 8)).astype(np.uint8)
    pairs = npz(x=small, y=small.repeat(2, axis=2).repeat(2, axis=3))
    metadata = put(access, pairs, "pairs").json()["metadata"]
    assert (metadata["task"], metadata["input_shape"], metadata["output_shape"]) == (
        "super-resolution",
        [3, 8, 8],
        [3, 16, 16],
    )
    assert (metadata["num_samples"], metadata["num_thumbnails"]) == (20, 8)
    detail = check_problem(put(access, npz(y=np.full(60, 0.5)), "constant"), 422, "dataset_format")
    assert "is 0.5 for all samples" in detail


def test_the_same_content_again_needs_no_body(access: Any) -> None:
    content = npz()
    first = put(access, content).json()
    again = put(access, b"", name="other", sha256=hashlib.sha256(content).hexdigest())
    assert (again.status_code, again.json()) == (200, first)


def test_a_wrong_hash_keeps_nothing(
    access: Any, check_problem: Callable[..., str], storage: Path
) -> None:
    assert "send the file again" in check_problem(
        put(access, npz(), sha256="0" * 64), 422, "invalid_dataset"
    )
    assert files(storage) == set()


def test_a_name_of_other_content_is_refused(
    access: Any, other_access: Any, check_problem: Callable[..., str]
) -> None:
    assert put(access, npz()).status_code == 201
    check_problem(put(access, npz(seed=1)), 409, "conflict")
    assert put(other_access, npz(seed=1)).status_code == 201


@pytest.mark.parametrize("chunked", [False, True])
def test_too_many_bytes_are_refused(
    access: Any, check_problem: Callable[..., str], storage: Path, chunked: bool
) -> None:
    content = b"x" * 300_000
    pieces: Iterator[bytes] = iter([content[:150_000], content[150_000:]])
    answer = put(access, pieces if chunked else content, sha256="0" * 64)  # type: ignore[arg-type]
    check_problem(answer, 413, "too_large")
    assert files(storage) == set()


@pytest.mark.parametrize(
    ("content", "filename", "code"),
    [
        (b"this is no archive", "a.npz", "dataset_format"),
        (b"this is no archive", "a.zip", "dataset_format"),
        (npz(3), "a.npz", "dataset_too_small"),
        (npz(y=np.array([object()] * 60)), "a.npz", "dataset_format"),
    ],
)
def test_content_that_cannot_be_used_keeps_nothing(
    access: Any,
    check_problem: Callable[..., str],
    storage: Path,
    content: bytes,
    filename: str,
    code: str,
) -> None:
    detail = check_problem(put(access, content, filename=filename), 422, code)
    assert str(storage) not in detail
    assert files(storage) == set()


@pytest.mark.parametrize(
    "parameters",
    [
        {"name": "a", "filename": "a.pkl"},
        {"name": "a", "filename": "../a.npz"},
        {"name": "a", "filename": ".npz"},
        {"name": "a/b", "filename": "a.npz"},
        {"name": "digits", "filename": "a.npz"},
        {"filename": "a.npz"},
    ],
)
def test_bad_names_are_refused(access: Any, parameters: dict[str, str]) -> None:
    answer = access.user.put(f"/v1/datasets/content/{'0' * 64}", params=parameters, content=b"")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_check_that_needs_too_much_memory_is_a_fault_of_the_dataset(
    access: Any,
    context: Context,
    check_problem: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = context.settings.model_copy(update={"upload_memory_bytes": 2**27})
    monkeypatch.setitem(context.__dict__, "settings", small)
    file = io.BytesIO()
    arrays = {"x": np.zeros((60, 1, 2_000_000), np.uint8), "y": np.arange(60) % 3}
    np.savez_compressed(file, **arrays)
    check_problem(put(access, file.getvalue()), 422, "dataset_format")


def test_a_check_that_takes_too_long_is_a_fault_of_the_dataset(
    access: Any,
    context: Context,
    check_problem: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        context.__dict__, "settings", context.settings.model_copy(update={"upload_seconds": 0.01})
    )
    assert "took more than 0.01 s" in check_problem(put(access, npz()), 422, "dataset_format")


def test_two_uploads_of_the_same_content_at_once_both_answer_well(
    access: Any, storage: Path
) -> None:
    content = npz()
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda name: put(access, content, name, f"{name}.npz"), ["one", "two"])
        )
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert answers[0].json() == answers[1].json()
    assert len([path for path in files(storage) if path.endswith(".npz")]) == 1


def test_what_a_dead_process_left_is_cleaned(context: Context) -> None:
    root = incoming_folder(context.settings, context.store)
    (root / "incoming-dead").mkdir(parents=True)
    (root / "incoming-dead" / ".lock").touch()
    (root / "incoming-dead" / "a.npz").write_bytes(b"half")
    with receiving(root, "b.npz", limit_bytes=10) as incoming:
        assert clean_abandoned(root) == 0  # the dead one went when this began; this one is alive
        assert [path.name for path in root.glob("*/*.npz")] == [incoming.path.name]
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_by_url(access: Any, tmp_path: Path, check_problem: Callable[..., str]) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "waves.npz").write_bytes(npz())
    (tmp_path / "secret.npz").write_bytes(npz())
    (tmp_path / "allowed" / "link.npz").symlink_to(tmp_path / "secret.npz")
    body = {"name": "waves", "url": f"file://{tmp_path}/allowed/waves.npz"}
    first, again = (access.user.post("/v1/datasets", json=body) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["source_url"] == body["url"]
    link = access.user.post(
        "/v1/datasets", json={"name": "a", "url": f"file://{tmp_path}/allowed/link.npz"}
    )
    check_problem(link, 403, "forbidden")
    gone = access.user.post(
        "/v1/datasets", json={"name": "a", "url": f"file://{tmp_path}/allowed/gone.npz"}
    )
    check_problem(gone, 422, "dataset_not_found")


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://data.example.evil/sets/a.npz", 403),
        ("https://data.example:444/sets/a.npz", 403),
        ("http://data.example/sets/a.npz", 403),
        ("https://data.example/setsa.npz", 403),
        ("ftp://data.example/sets/a.npz", 403),
        ("file:///etc/a.npz", 403),
        ("https://data.example@evil/sets/a.npz", 422),
        ("https://user:word@data.example/sets/a.npz", 422),
        ("https://data.example/sets/../a.npz", 422),
        ("https://data.example/sets/%2e%2e/a.npz", 422),
        ("https://data.example/sets/%252e%252e/a.npz", 422),
        ("https://data.example\\@evil/sets/a.npz", 422),
        ("https://data.example/sets/a.pkl", 422),
        ("https://data.example:x/sets/a.npz", 422),
        ("https://[data.example/sets/a.npz", 422),
        ("/etc/passwd", 422),
        ("a\u0000b", 422),
    ],
)
def test_urls_that_are_not_allowed(access: Any, url: str, status: int) -> None:
    answer = access.user.post("/v1/datasets", json={"name": "a", "url": url})
    assert answer.status_code == status, answer.text


def test_delete_is_refused_while_a_job_uses_it(
    access: Any, database: Database, check_problem: Callable[..., str], storage: Path
) -> None:
    dataset_id = put(access, npz()).json()["id"]
    job = JobRow(
        id=new_id("job"),
        project_id=access.project_id,
        name=None,
        kind=JobKind.SEARCH.value,
        parent_id=None,
        dataset_id=dataset_id,
        spec={},
        widths=None,
        idempotency_key=None,
        request_hash=None,
        state=JobState.QUEUED.value,
        priority=0,
        queue_position="1",
        available_at=now(),
        max_attempts=5,
        lease_token_hash=None,
        lease_expires_at=None,
        submission_id=None,
        progress=None,
        cost_before={},
        cost={},
        notes=[],
        error=None,
        created_at=now(),
        started_at=None,
        finished_at=None,
    )
    with database.write() as session:
        session.add(job)
    assert job.id in check_problem(access.user.delete("/v1/datasets/waves"), 409, "conflict")
    with database.write() as session:
        session.get_one(JobRow, job.id).state = JobState.SUCCEEDED.value
    assert access.user.delete("/v1/datasets/waves").status_code == 204
    assert files(storage) == set()
    check_problem(access.user.delete("/v1/datasets/waves"), 404, "not_found")


def test_another_project_sees_nothing(
    access: Any, other_access: Any, check_problem: Callable[..., str]
) -> None:
    dataset_id = put(access, npz()).json()["id"]
    assert other_access.user.get("/v1/datasets").json()["items"] == []
    for path in (dataset_id, "waves", f"{dataset_id}/thumbnails/0"):
        check_problem(other_access.user.get(f"/v1/datasets/{path}"), 404, "not_found")
    check_problem(other_access.admin.delete(f"/v1/datasets/{dataset_id}"), 404, "not_found")
    check_problem(access.agent.get("/v1/datasets"), 403, "forbidden")


def test_pages(access: Any) -> None:
    names = [put(access, npz(seed=seed), name=f"d{seed}").json()["name"] for seed in range(3)]
    first = access.user.get("/v1/datasets", params={"limit": 2}).json()
    rest = access.user.get(
        "/v1/datasets", params={"limit": 2, "cursor": first["next_cursor"]}
    ).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == names[::-1]
    assert rest["next_cursor"] is None
