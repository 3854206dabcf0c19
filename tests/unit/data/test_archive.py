"""ZIP archives from strangers."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inn_automl.core.errors import DatasetError, DatasetFormatError, UnsafeArchiveError
from inn_automl.data import limits, load_dataset
from inn_automl.data.formats.archive import open_archive

Zipped = Callable[..., Path]

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
# Offset of a field in the local and in the central header, and its struct format.
FLAGS, METHOD, UNCOMPRESSED_SIZE = (6, 8, "<H"), (8, 10, "<H"), (22, 24, "<I")


def patch_headers(path: Path, field: tuple[int, int, str], change: Callable[[int], int]) -> None:
    """Changes a field of every member's headers, in both places."""
    content = bytearray(path.read_bytes())
    for signature, offset in zip((LOCAL, CENTRAL), field, strict=False):
        start = content.find(signature)
        while start >= 0:
            (value,) = struct.unpack_from(field[2], content, start + offset)  # type: ignore[call-overload]
            struct.pack_into(field[2], content, start + offset, change(value))  # type: ignore[call-overload]
            start = content.find(signature, start + 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/etc/evil.png",
        "C:\\evil.png",
        "c:evil.png",
        "a\\..\\..\\evil.png",
        "\\\\host\\x",
    ],
)
def test_paths_that_leave_the_folder(make: Any, zipped: Zipped, name: str, tmp_path: Path) -> None:
    path = zipped(make.classes("a", "b") | {name: make.png()})
    with pytest.raises(
        UnsafeArchiveError, match=r"pets.zip' holds .*, which leaves the archive's folder: pack it"
    ):
        load_dataset(path)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("file_type", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices(make: Any, zipped: Zipped, file_type: int) -> None:
    link = zipfile.ZipInfo("a/9.png")
    link.create_system, link.external_attr = 3, (file_type | 0o777) << 16
    path = zipped([*make.classes("a", "b").items(), (link, b"/etc/passwd")])
    with pytest.raises(
        UnsafeArchiveError, match=r"holds 'a/9.png', a link or a device: pack plain files only"
    ):
        load_dataset(path)


def test_expanding_beyond_the_limit_by_its_headers(
    make: Any, zipped: Zipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(make.classes("a", "b") | {"a/9.png": bytes(2**20)})
    monkeypatch.setattr(limits, "MAX_EXPANDED_BYTES", 2**20)
    with pytest.raises(
        UnsafeArchiveError,
        match=r"expands to 1\.\d+ MiB or more, beyond the limit of 1 MiB: use fewer",
    ):
        load_dataset(path)


def test_expanding_beyond_the_ratio(
    make: Any, zipped: Zipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(make.classes("a", "b") | {"a/README.txt": b"", "b.txt": bytes(2**22)})
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 2**20)
    with pytest.raises(
        UnsafeArchiveError,
        match=r"expands to 4\.\d* MiB or more, over 100 times its size of .* KiB",
    ):
        load_dataset(path)
    assert path.stat().st_size * 1000 > 2**22  # the archive is what the test takes it for


def test_real_bytes_are_counted_whatever_the_headers_said(
    make: Any, zipped: Zipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(make.classes("a", "b"))
    listing = open_archive(path)
    size = sum(len(entry.read()) for entry in listing.files)
    monkeypatch.setattr(limits, "MAX_EXPANDED_BYTES", size - 1)
    for entry in listing.files:
        entry.read()  # what was counted is not counted again
    monkeypatch.undo()
    listing = open_archive(path)
    monkeypatch.setattr(limits, "MAX_EXPANDED_BYTES", size - 1)
    for entry in listing.files[:-1]:
        entry.read()
    with pytest.raises(UnsafeArchiveError, match="beyond the limit"):
        listing.files[-1].read()


def test_a_header_that_lies_about_the_size(make: Any, zipped: Zipped) -> None:
    path = zipped(make.classes("a", "b") | {"a/9.png": bytes(2**24)})
    patch_headers(path, UNCOMPRESSED_SIZE, lambda size: min(size, 200))
    with pytest.raises(
        DatasetFormatError,
        match=r"'a/9.png' in .*pets.zip' is damaged \(.*: pack the archive again",
    ):
        load_dataset(path)


def test_one_member_beyond_the_limit(
    make: Any, zipped: Zipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 2**20)
    path = zipped(make.classes("a", "b") | {"a/9.png": bytes(2**20 + 1)})
    with pytest.raises(
        DatasetFormatError, match=r"'a/9.png' in .* is larger than the limit of 1 MiB a file"
    ):
        load_dataset(path)


def test_too_many_members(make: Any, zipped: Zipped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FILES", 7)
    with pytest.raises(UnsafeArchiveError, match="holds 8 files, more than the limit of 7"):
        load_dataset(zipped(make.classes("a", "b")))


def test_backslashes_are_folders(make: Any, zipped: Zipped) -> None:
    files = {name.replace("/", "\\"): content for name, content in make.classes("a", "b").items()}
    assert load_dataset(zipped(files)).classes == ("a", "b")


def test_leading_dots_and_folder_members(make: Any, zipped: Zipped) -> None:
    files = {f"./{name}": content for name, content in make.classes("a", "b").items()}
    assert load_dataset(zipped({"./": b"", "./a/": b"", **files})).classes == ("a", "b")


def test_utf8_names_without_the_flag(make: Any, zipped: Zipped) -> None:
    path = zipped(make.classes("été", "日本"))
    patch_headers(path, FLAGS, lambda flags: flags & ~0x800)
    assert load_dataset(path).classes == ("été", "日本")


def test_code_page_437_names(make: Any, zipped: Zipped) -> None:
    path = zipped(make.classes("caf\u00e9", "b"))
    content = path.read_bytes().replace("caf\u00e9".encode(), "caf\u00e9 ".encode("cp437"))
    path.write_bytes(content)
    patch_headers(path, FLAGS, lambda flags: flags & ~0x800)
    assert load_dataset(path).classes == ("b", "caf\u00e9 ")


def test_encrypted(make: Any, zipped: Zipped) -> None:
    path = zipped(make.classes("a", "b"))
    patch_headers(path, FLAGS, lambda flags: flags | 1)
    with pytest.raises(DatasetFormatError, match="is encrypted: pack it without a password"):
        load_dataset(path)


def test_unknown_compression(make: Any, zipped: Zipped) -> None:
    path = zipped(make.classes("a", "b"))
    patch_headers(path, METHOD, lambda _: 97)
    with pytest.raises(DatasetFormatError, match=r"is damaged \(.*compression"):
        load_dataset(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(make: Any, tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", method) as archive:
        for name, content in make.classes("a", "b").items():
            archive.writestr(name, content)
    assert len(load_dataset(tmp_path / "pets.zip").x) == 8


def test_a_name_twice(make: Any, zipped: Zipped) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped([*make.classes("a", "b").items(), ("a/0.png", make.png())])
    with pytest.raises(DatasetFormatError, match=r"holds 'a/0\.png' twice"):
        load_dataset(path)


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(b"PK but no more")
    with pytest.raises(
        DatasetFormatError, match=r"pets.zip' cannot be read as a ZIP archive \(.*: pack it again"
    ):
        load_dataset(tmp_path / "pets.zip")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_anywhere_is_a_dataset_error_or_harmless(
    make: Any, tmp_path: Path, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, image in make.classes("a", "b").items():
            archive.writestr(name, image)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    (tmp_path / "pets.zip").write_bytes(content)
    with contextlib.suppress(DatasetError):
        dataset = load_dataset(tmp_path / "pets.zip")
        assert set(np.unique(dataset.x)) <= set(range(8))  # checksums let no changed pixel through
