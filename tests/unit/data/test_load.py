"""From a source to a loader, and what a source that is none is told."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inn_automl.core.errors import DatasetFormatError, DatasetNotFoundError
from inn_automl.data import load_dataset


def test_unknown_name_says_both_facts_and_the_nearest_builtin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DatasetNotFoundError,
        match=r"no file or folder at 'Digit' and no built-in .*mean 'digits'\?",
    ) as e:
        load_dataset("Digit")
    assert isinstance(e.value, FileNotFoundError)
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)  # noqa: S301 (as Ray hands errors over)


@pytest.mark.parametrize("source", ["nowhere/at-all.npz", "", "  ", "a\0b", "~no-such-user-here/x"])
def test_nothing_there(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="one of digits, mnist1d, mnist5k, photo-digits"):
        load_dataset(source)


@pytest.mark.parametrize("name", ["data.xlsx", "data.rar", "data"])
def test_unknown_kind_of_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1,2,3")
    with pytest.raises(DatasetFormatError, match=r"give an \.npz file; a folder, \.zip .*pairs"):
        load_dataset(str(tmp_path / name))


def test_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(DatasetFormatError, match="neither a file nor a folder"):
        load_dataset(str(tmp_path / "pipe.npz"))


def test_too_long_a_name_cannot_be_read() -> None:
    with pytest.raises(DatasetFormatError, match="cannot be read"):
        load_dataset("a" * 5000)


def test_name_comes_from_the_path(
    make: Any, tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(make.classes("cat", "dog"))
    assert load_dataset(str(folder)).name == "pets"
    assert load_dataset(f"{folder}/").name == "pets"
    assert load_dataset(folder).name == "pets"
    monkeypatch.chdir(folder)
    assert load_dataset(".").name == "pets"


def test_builtin_wins_over_a_folder_of_its_name_unless_given_as_a_path(
    make: Any, tree: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(make.classes("cat", "dog")).rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("digits").num_classes == 10
    assert load_dataset("./digits").classes == ("cat", "dog")


def test_suffixes_in_any_case(
    make: Any, zipped: Callable[..., Path], npz: Callable[..., Path]
) -> None:
    archive = zipped(make.classes("cat", "dog"))
    assert load_dataset(archive.rename(archive.with_suffix(".ZIP"))).classes == ("cat", "dog")
    arrays = npz(x=[[0.0, 1.0]] * 6, y=[0, 1] * 3)
    assert load_dataset(arrays.rename(arrays.with_suffix(".NpZ"))).name == "user"
