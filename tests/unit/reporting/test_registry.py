from __future__ import annotations

import zipfile
from pathlib import Path

import mlflow.artifacts
import numpy as np
import onnxruntime
import pytest

from inn_automl.core.errors import CorruptFileError
from inn_automl.reporting import registry
from inn_automl.reporting.store import Store, connect
from tests.unit.reporting.job_samples import write_bundle


def test_names_keep_to_what_a_registry_takes() -> None:
    assert registry.model_name("mnist5k", "laptop-1") == "mnist5k.laptop-1"
    assert registry.model_name("my data/set: 1", "a") == "my-data-set-1.a"
    assert registry.model_name("///", "a") == "dataset.a"


def test_registered_model_is_the_bundle_s_and_the_newest_is_recommended(
    store: Store, tmp_path: Path
) -> None:
    client = connect(store)
    experiment = client.create_experiment("x", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment)
    numbers = []
    for features in (1, 2):
        bundle = tmp_path / f"{features}.zip"
        write_bundle(bundle, num_features=features)
        numbers.append(
            registry.register(client, run, bundle, "m.d", tags={"k": "v"}, description="d")
        )
    assert numbers == ["1", "2"]
    found = client.get_model_version_by_alias("m.d", "recommended")
    assert (str(found.version), found.run_id, found.tags) == ("2", run.info.run_id, {"k": "v"})

    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=found.source))
    content = (folder / "model.onnx").read_bytes()
    with zipfile.ZipFile(tmp_path / "2.zip") as archive:
        assert content == archive.read("model.onnx")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": np.ones((3, 1, 28, 28), np.float32)})[0] == pytest.approx(
        np.full((3, 10), 392)
    )

    model = mlflow.models.Model.load(str(folder / "MLmodel"))
    assert model.get_input_schema().inputs[0].shape == (-1, 1, 28, 28)
    assert set(model.flavors) == {"onnx", "python_function"}
    loaded = mlflow.pyfunc.load_model(str(folder))
    assert loaded.predict(np.ones((1, 1, 28, 28), np.float32))["logits"].shape == (1, 10)

    registry.unregister(client, run.info.run_id)
    assert client.search_model_versions("name = 'm.d'") == []


@pytest.mark.parametrize("content", [None, b"no zip", "empty zip"])
def test_a_bundle_that_cannot_be_read_is_named(
    store: Store, tmp_path: Path, content: bytes | str | None
) -> None:
    bundle = tmp_path / "bundle.zip"
    if isinstance(content, bytes):
        bundle.write_bytes(content)
    elif content:
        zipfile.ZipFile(bundle, "w").close()
    client = connect(store)
    run = client.create_run(client.create_experiment("x", artifact_location=tmp_path.as_uri()))
    with pytest.raises(CorruptFileError, match=r"bundle\.zip' holds no readable model\.onnx"):
        registry.register(client, run, bundle, "m.d", tags={}, description="")
    assert client.search_registered_models() == []
