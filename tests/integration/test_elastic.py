"""elastic.zip of a real job, and the example that streams frames through it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from inn_automl.data import load_dataset
from inn_automl.export import extract_bundle
from inn_automl.serving import ElasticModel

from .conftest import FinishedJob

EXAMPLE = Path(__file__).parents[2] / "examples" / "elastic_stream.py"


def test_every_front_point_gives_the_logits_of_its_bundle(
    finished_job: FinishedJob, tmp_path: Path
) -> None:
    path = finished_job.folder / finished_job.result.job["elastic"]
    data = load_dataset("digits", seed=0)
    samples = np.asarray(data.x[data.test[:16]], np.float32)
    for device in finished_job.result.devices:
        model = ElasticModel(path, device=device.name)
        assert {point.id for point in device.front} <= {point.id for point in model.points}
        for point in device.front:
            bundle, folder = finished_job.folder / point.bundle, tmp_path / point.id
            extract_bundle(bundle, folder)
            session = onnxruntime.InferenceSession(
                folder / "model.onnx", providers=["CPUExecutionProvider"]
            )
            (expected,) = session.run(None, {"input": samples})
            assert model.set_point(point.id).metric.validation == point.metric_value
            np.testing.assert_allclose(
                model.run(samples), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
            )
        slowest = device.front[-1]
        chosen = model.set_latency(2 * slowest.latency_ms.ci[1] + 1).point
        assert chosen.metric.validation == max(p.metric.validation for p in model.points)
    bundles = {point.bundle for device in finished_job.result.devices for point in device.front}
    total_bytes = sum((finished_job.folder / bundle).stat().st_size for bundle in bundles)
    assert path.stat().st_size < total_bytes


def test_the_example_loses_no_frame(
    finished_job: FinishedJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = load_dataset("digits", seed=0)
    np.savez(tmp_path / "frames.npz", x=data.x[data.test[:10]])
    elastic = str(finished_job.folder / "elastic.zip")
    options = [
        "--device",
        "one-thread",
        "--samples",
        str(tmp_path / "frames.npz"),
        "--fps",
        "200",
        "--seconds",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["elastic_stream.py", elastic, *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert [line.split()[0] for line in (lines[1], *lines[2:-1:2])] == ["frames", *["budget"] * 4]
    assert lines[-1] == "200 frames came, 200 were answered, 0 lost"
    monkeypatch.setattr(sys, "argv", ["elastic_stream.py", str(tmp_path / "frames.npz")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert ended.value.code == 2 and "no whole elastic model" in capsys.readouterr().err
