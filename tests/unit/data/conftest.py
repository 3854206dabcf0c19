"""Small datasets on disk, made for one test each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image


class Make:
    """File contents and small datasets on disk."""

    @staticmethod
    def png(
        colour: int | tuple[int, ...] = 0,
        *,
        size: tuple[int, int] = (6, 4),
        mode: str = "L",
        **options: Any,
    ) -> bytes:
        """A PNG of one colour; size is (width, height)."""
        stream = io.BytesIO()
        Image.new(mode, size, colour).save(stream, "PNG", **options)
        return stream.getvalue()

    @staticmethod
    def image(
        pixels: np.ndarray, file_format: str = "PNG", mode: str | None = None, **options: Any
    ) -> bytes:
        """An image file of an array (H, W) or (H, W, C)."""
        stream = io.BytesIO()
        image = Image.fromarray(pixels)
        (image if mode is None else image.convert(mode)).save(stream, file_format, **options)
        return stream.getvalue()

    @staticmethod
    def wav(signal: np.ndarray, *, rate_hz: int = 8000, subtype: str = "PCM_16") -> bytes:
        """A WAV file of an array (L,) or (L, C)."""
        stream = io.BytesIO()
        soundfile.write(stream, signal, rate_hz, format="WAV", subtype=subtype)
        return stream.getvalue()

    @classmethod
    def classes(cls, *class_names: str, count: int = 4, **options: Any) -> dict[str, bytes]:
        """Files of `count` grey images a class, every one of another shade."""
        names = [f"{name}/{i}.png" for name in class_names for i in range(count)]
        return {name: cls.png(shade, **options) for shade, name in enumerate(names)}


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Writes files by their path below a new folder `pets`."""

    def write(files: Mapping[str, bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / "pets" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "pets"

    return write


@pytest.fixture
def zipped(tmp_path: Path) -> Callable[..., Path]:
    """Writes members into a new archive `pets.zip`, with names exactly as given."""

    def write(files: Mapping[str, bytes] | Sequence[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
        items = files.items() if isinstance(files, Mapping) else files
        with zipfile.ZipFile(tmp_path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in items:
                archive.writestr(name, content)
        return tmp_path / "pets.zip"

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """Writes arrays into a new file `user.npz`."""

    def write(**arrays: Any) -> Path:
        np.savez(tmp_path / "user.npz", **arrays)
        return tmp_path / "user.npz"

    return write
