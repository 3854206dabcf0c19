"""Files that are either there whole or not there at all."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from inn_automl.core import storage
from inn_automl.core.errors import CorruptFileError, StorageError
from inn_automl.core.storage import (
    load_or_make,
    read_json,
    replacing,
    reuse_files,
    write_atomically,
    write_json,
)


def test_a_file_is_replaced_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"before")
    with replacing(path) as temporary:
        temporary.write_bytes(b"after")
        assert temporary.parent == path.parent and temporary.name.startswith(".")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert os.listdir(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_stays_when_its_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    block = replacing(path)
    block.__enter__().write_bytes(b"half")
    stopped = KeyboardInterrupt()
    assert not block.__exit__(KeyboardInterrupt, stopped, None)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_file_that_cannot_be_moved_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.os, "replace", fail)
    with pytest.raises(StorageError) as caught:
        write_atomically(tmp_path / "file", b"12345")
    assert str(tmp_path / "file") in str(caught.value)
    assert ("5 bytes" in str(caught.value)) == (number == errno.ENOSPC)
    assert os.listdir(tmp_path) == []


def test_json_comes_back_or_says_that_it_is_broken(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"key": [1, 2]})
    assert read_json(tmp_path / "file") == {"key": [1, 2]}
    (tmp_path / "file").write_text("{")
    with pytest.raises(CorruptFileError):
        read_json(tmp_path / "file")


@dataclass(frozen=True)
class Sizes:
    by_name: dict[str, tuple[int, float]]


def test_a_value_is_made_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    path, made = tmp_path / "folder" / "sizes.json", []

    def make() -> Sizes:
        made.append(Sizes({"a": (1, 0.1)}))
        return made[-1]

    assert load_or_make(path, Sizes, make) == load_or_make(path, Sizes, make) == made[0]
    assert len(made) == 1
    path.write_text('{"by_name": {"a": 1}}')
    with pytest.raises(CorruptFileError) as caught:
        load_or_make(path, Sizes, make)
    assert str(path) in str(caught.value)


def test_files_are_copied_the_last_one_last(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    assert not reuse_files(None, target, ["a", "folder/b"])
    assert not reuse_files(source, target, ["a", "folder/b"])
    write_atomically(source / "a", b"1")
    write_atomically(source / "folder" / "b", b"2")
    assert reuse_files(source, target, ["a", "folder/b"])
    assert ((target / "a").read_bytes(), (target / "folder" / "b").read_bytes()) == (b"1", b"2")
    write_atomically(source / "a", b"3")
    assert reuse_files(source, target, ["a", "folder/b"])
    assert (target / "a").read_bytes() == b"1"
