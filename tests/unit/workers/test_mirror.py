"""A scratch folder and its store hold the same files; what vouches for others comes after them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inn_automl_workers.mirror import Mirror

from inn_automl.core.errors import StorageError
from inn_automl.core.object_store import ObjectStore


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/store")


def write(folder: Path, name: str, text: str, at_s: int = 1) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    os.utime(folder / name, (at_s, at_s))


def test_pushed_and_pulled(store: ObjectStore, tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, "training/done.json", "[]")
    write(first, ".lock", "")
    write(first, "half.part", "x")
    store.write("log.txt", b"others' words")
    store.write("measuring-models/x.onnx", b"model")
    Mirror(store, first).push()
    assert set(store.files()) == {"training/done.json", "log.txt", "measuring-models/x.onnx"}
    Mirror(store, second).pull()
    assert [path.relative_to(second).as_posix() for path in second.rglob("*.*")] == [
        "training/done.json"
    ]


def test_only_changes_are_pushed_oldest_first(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, pushed = tmp_path / "folder", []
    put = store.put
    monkeypatch.setattr(store, "put", lambda name, path: (pushed.append(name), put(name, path))[1])
    write(folder, "a-done.json", "done", at_s=2)
    write(folder, "weights", "w", at_s=1)
    mirror = Mirror(store, folder)
    mirror.push()
    write(folder, "weights", "w2", at_s=3)
    mirror.push()
    mirror.push()
    assert pushed == ["weights", "a-done.json", "weights"]


def test_what_is_deleted_here_is_deleted_there(store: ObjectStore, tmp_path: Path):
    folder = tmp_path / "folder"
    write(folder, "checkpoint", "x")
    mirror = Mirror(store, folder)
    mirror.push()
    (folder / "checkpoint").unlink()
    mirror.push()
    assert store.files() == {}


def test_everything_is_pushed_at_the_end_and_a_fault_is_told(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "folder"
    mirror = Mirror(store, folder)
    with mirror.pushing():
        write(folder, "result.json", "{}")
    assert store.read("result.json") == b"{}"

    def fail(name: str, path: Path) -> None:
        raise StorageError("away")

    monkeypatch.setattr(store, "put", fail)
    with pytest.raises(StorageError, match="away"), mirror.pushing():
        write(folder, "result.json", "{1}", at_s=9)
