"""`inn-automl predict`: a line a file, faults at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inn_automl.cli.main import main
from tests.unit.export.file_models import (
    AUDIO,
    CLASSES,
    image_input,
    preprocessing,
    write_file_bundle,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_file_bundle(tmp_path, preprocessing(image_input()))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures, one in a folder below, and what is no picture."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "more/a.JPG", ".hidden/c.png", ".d.png"):
        pixels = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, format="JPEG" if "JPG" in name else "PNG")
    (folder / "README.txt").write_text("not of this kind")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_a_line_a_file(bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, bundle, photos)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{photos}/b.png", f"{photos}/more/a.JPG"]
    assert all(line.split(": ")[1].split()[0] in CLASSES for line in lines)
    assert all(line.endswith(" %") for line in lines)


def test_json_lines(bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, bundle, photos / "b.png", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["path"] == str(photos / "b.png")
    assert found["class"] == max(found["probabilities"], key=found["probabilities"].get)
    assert sum(found["probabilities"].values()) == pytest.approx(1)


def test_faults_come_last_and_the_rest_is_done(
    bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a.png").write_bytes(b"no image")
    code, out, err = run(capsys, bundle, photos, photos / "none.png")
    assert code == 1
    assert len(out.splitlines()) == 2
    first, second, last = err.splitlines()
    assert first.startswith(f"{photos}/a.png: ")
    assert "cannot be read" in second
    assert last == "inn-automl: 2 of 4 files could not be predicted."
    code, out, err = run(capsys, bundle, photos, "--json")
    assert code == 1
    assert len(out.splitlines()) == 2
    fault, end = map(json.loads, err.splitlines())
    assert fault["path"] == f"{photos}/a.png"
    assert fault["code"] == end["code"] == "dataset_format"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bundle.zip"], 2, "Give files or folders"),
        (["none.zip", "x.png"], 1, "give its path"),
        (["x.png", "x.png"], 1, "not a whole bundle"),
        (["bundle.zip", "empty"], 2, "there is no file for this model in 'empty'"),
    ],
)
def test_bad_input(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(bundle.parent)
    (bundle.parent / "empty").mkdir()
    (bundle.parent / "x.png").write_bytes(b"no image")
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in err


def test_another_format_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = bundle.with_name("old.zip")
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(old, "w") as changed:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "config.json":
                data = json.dumps(json.loads(data) | {"format_version": 1}).encode()
            changed.writestr(name, data)
    code, _, err = run(capsys, old, "x.png")
    assert code == 1
    assert "is a bundle of format 1, and this release reads format 2" in err


@pytest.mark.parametrize(
    ("audio", "missing", "message"),
    [(False, "PIL", "pillow"), (True, "soxr", "soxr"), (True, "soundfile", "soundfile")],
)
def test_without_what_decodes_files_it_says_how_to_install_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    audio: bool,
    missing: str,
    message: str,
) -> None:
    described = preprocessing(audio=AUDIO) if audio else preprocessing(image_input())
    bundle = write_file_bundle(tmp_path, described)
    monkeypatch.setitem(sys.modules, missing, None)
    code, _, err = run(capsys, bundle, tmp_path / "file.wav")
    assert code == 2
    assert f"are read with {message}, which" in err
    assert "pip install 'inn-automl[predict]'" in err


def test_it_needs_no_extra_but_what_decodes(bundle: Path, photos: Path) -> None:
    """In a fresh interpreter without all that the base install lacks."""
    lacking = ["torch", "onnx", "safetensors", "sklearn", "scipy", "pandas", "pyarrow", "fsspec"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({[*lacking, 'soundfile', 'soxr']!r}))\n"
        "from inn_automl.cli.main import main\n"
        f"main(['predict', {str(bundle)!r}, {str(photos)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
