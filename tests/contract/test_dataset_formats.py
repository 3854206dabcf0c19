"""Uploads of every kind of file: checked by the coordinator, and nothing else of it is read."""

from __future__ import annotations

import functools
import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.contract import uploads
from tests.contract.uploads import files

put = functools.partial(uploads.put, name="pets", filename="pets.zip")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def picture(number: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (number, 90, 200)).save(file, "JPEG")
    return file.getvalue()


def packed(files: dict[str, bytes], mode: Any) -> bytes:
    """A TAR archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def tabled(**columns: list[Any]) -> bytes:
    """A Parquet file."""
    stream = io.BytesIO()
    parquet.write_table(pa.table(columns), stream)
    return stream.getvalue()


def test_photographs_of_many_sizes_in_every_kind_of_file(access: Any, storage: Path) -> None:
    names = [f"{'ab'[i % 2]}/{i}.jpg" for i in range(20)]
    photographs = [picture(i, (60 + 3 * i, 90 - i)) for i in range(20)]
    manifest = "file_name,label,speaker\n" + "".join(f"{n},{n[0]},{n[2]}\n" for n in names)
    folder = dict(zip(names, photographs, strict=True))
    table = tabled(image=photographs, label=[name[0] for name in names])
    uploads = {
        "folders.tar": packed(folder, "w"),
        "folders.tar.gz": packed(folder, "w:gz"),
        "manifest.tar": packed(folder | {"metadata.csv": manifest.encode()}, "w"),
        "one.parquet": table,
        "hub.tar": packed({"hub/README.md": b"#", "hub/data/train-0-of-1.parquet": table}, "w"),
    }
    for number, (filename, content) in enumerate(uploads.items()):
        made = put(access, content, name=f"d{number}", filename=filename)
        assert made.status_code == 201, made.text
        metadata = made.json()["metadata"]
        assert metadata["classes"] == ["a", "b"] and metadata["class_counts"] == [10, 10]
        assert metadata["input_shape"] == [3, 72, 72]
        assert metadata["num_thumbnails"] == 8
    stored = files(storage)
    assert len(stored) == 9 * len(uploads)  # nothing of what was decoded


def test_an_upload_reads_no_files_of_the_server(
    access: Any, tmp_path: Path, check_problem: Any
) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(picture(1))
    content = tabled(path=[str(path)] * 20, label=["a", "b"] * 10)
    answer = put(access, content, filename="a.parquet")
    assert "lies outside of the file" in check_problem(answer, 422, "dataset_format")
