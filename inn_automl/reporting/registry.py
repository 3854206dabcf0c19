"""Recommended models in MLflow's model registry, each as a version that names the run it came
from.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inn_automl.core.errors import CorruptFileError
from inn_automl.reporting.store import quiet_mlflow

if TYPE_CHECKING:
    import onnx
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

ALIAS = "recommended"
"""Names the newest version: `models:/NAME@recommended`."""


def model_name(dataset: str, device: str) -> str:
    """Name of the registered model that holds what jobs on `dataset` recommend for `device`."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset).strip('-') or 'dataset'}.{device}"


def register(
    client: MlflowClient,
    run: Run,
    bundle: Path,
    name: str,
    *,
    tags: dict[str, str],
    description: str,
) -> str:
    """Logs the ONNX model of `bundle` to `run` as an MLflow model and registers it under `name`.

    Returns:
        The number of the new version, which the alias `recommended` now points to.

    Raises:
        CorruptFileError: the bundle holds no readable ONNX model.
    """
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="inn_automl-") as folder:
        _write_model(Path(folder), _read_onnx(bundle), tags)
        client.log_artifacts(run.info.run_id, folder, "model")
    try:
        client.create_registered_model(
            name, description="Recommended by inn_automl jobs, the newest job's last."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        name, f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags, description=description
    )
    client.set_registered_model_alias(name, ALIAS, created.version)
    return str(created.version)


def unregister(client: MlflowClient, run_id: str) -> None:
    """Deletes the versions that came from a run."""
    for old in client.search_model_versions(f"run_id = '{run_id}'"):
        client.delete_model_version(old.name, old.version)


def _read_onnx(bundle: Path) -> bytes:
    try:
        with zipfile.ZipFile(bundle) as archive:
            return archive.read("model.onnx")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptFileError(
            f"the bundle {str(bundle)!r} holds no readable model.onnx ({error}): run the job again."
        ) from error


def _write_model(folder: Path, content: bytes, metadata: dict[str, str]) -> None:
    """Writes an MLflow model around the very bytes of the bundle.

    `mlflow.onnx.save_model` would write them again, under another hash, and takes a second to look
    through what is installed.
    """
    import onnx

    with quiet_mlflow():
        import mlflow.pyfunc
        from mlflow.models import Model

    model = Model(signature=_signature(onnx.load_model_from_string(content)), metadata=metadata)
    model.add_flavor(
        "onnx", onnx_version=onnx.__version__, data="model.onnx", providers=["CPUExecutionProvider"]
    )
    mlflow.pyfunc.add_to_model(model, loader_module="mlflow.onnx", data="model.onnx")
    requirements = [
        f"{package}=={version(package)}" for package in ("mlflow", "onnx", "onnxruntime")
    ]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (folder / "model.onnx").write_bytes(content)
    model.save(str(folder / "MLmodel"))


def _signature(model: onnx.ModelProto) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    return ModelSignature(
        inputs=Schema([_tensor(value) for value in model.graph.input]),
        outputs=Schema([_tensor(value) for value in model.graph.output]),
    )


def _tensor(value: onnx.ValueInfoProto) -> Any:
    from mlflow.types import TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
    return TensorSpec(tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name)
