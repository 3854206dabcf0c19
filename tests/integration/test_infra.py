"""What deploys the service: checked by the tools that would run it, and against the code that it
starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
from inn_automl_services.coordinator.settings import Settings
from ruamel.yaml import YAML

from inn_automl.cli.main import commands

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
KUBERNETES_VERSION = "1.34"
DOCKERFILES = sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))
OVERLAYS = ("base", "overlays/gpu")
LIMITS = dict(
    line.split("==")
    for line in (ROOT / "infra/constraints.txt").read_text().splitlines()
    if "==" in line
)
OTHER_VARIABLES = {"INN_AUTOML_KEY", "INN_AUTOML_URL", "INN_AUTOML_HOME"}
"""Those of the client and the agent; all others are the coordinator's settings."""
ONE_SHOTS = {"buckets", "migrate"}


def _compose_binary() -> Path:
    spec = importlib.util.find_spec("compose")
    assert spec is not None
    assert spec.origin is not None
    return (
        Path(spec.origin).parent / "docker-compose"
    )  # the package's own command hides the exit code


def _compose(env_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        _compose_binary(),
        "--project-directory",
        ROOT,
        "--env-file",
        env_file,
        "--profile",
        "*",
        *arguments,
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


@cache
def _services() -> dict[str, Any]:
    resolved = _compose(ROOT / ".env.example", "config", "--format", "json")
    assert resolved.returncode == 0, resolved.stderr
    services: dict[str, Any] = json.loads(resolved.stdout)["services"]
    return services


@cache
def _manifests(overlay: str) -> list[dict[str, Any]]:
    command = [Path(sys.executable).parent / "kubectl", "kustomize", KUBERNETES / overlay]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode == 0, built.stderr
    return list(YAML(typ="safe", pure=True).load_all(built.stdout))


def _pod_specs(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = document.get("spec", {})
    if document["kind"] == "RayCluster":
        yield spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            yield group["template"]["spec"]
    elif "template" in spec:
        yield spec["template"]["spec"]


def _containers() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [
        (f"{document['kind']}/{document['metadata']['name']}", pod, container)
        for document in _manifests("overlays/gpu")
        for pod in _pod_specs(document)
        for container in pod["containers"]
    ]


def _instructions(path: Path, word: str) -> list[str]:
    text = path.read_text().replace("\\\n", " ")
    return [
        line.removeprefix(word).strip() for line in text.splitlines() if line.startswith(f"{word} ")
    ]


def _entry_commands() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for name, service in _services().items():
        found.append(
            (
                f"compose/{name}",
                [*(service.get("entrypoint") or []), *(service.get("command") or [])],
            )
        )
    found += [(where, [*c.get("command", []), *c.get("args", [])]) for where, _, c in _containers()]
    for path in DOCKERFILES:
        words = [json.loads(i) for word in ("ENTRYPOINT", "CMD") for i in _instructions(path, word)]
        found.append((path.name, [argument for part in words for argument in part]))
    return found


def _named_variables() -> set[str]:
    text = (ROOT / "docker-compose.yml").read_text() + "".join(p.read_text() for p in DOCKERFILES)
    text += "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))
    listed = {
        variable["name"]
        for _, _, container in _containers()
        for variable in container.get("env", [])
    }
    written = set(re.findall(r"^[\s-]*(?:ENV )?(INN_AUTOML_[A-Z_]+)[:=]", text, re.MULTILINE))
    return written | {name for name in listed if name.startswith("INN_AUTOML_")}


def test_compose_accepts_the_file() -> None:
    assert {
        "postgres",
        "storage",
        "mlflow",
        "ray-head",
        "ray-worker",
        "coordinator",
        "agent",
    } <= _services().keys()


def test_the_compose_file_fits_its_schema() -> None:
    command = [
        Path(sys.executable).parent / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
    ]
    checked = subprocess.run(
        [*command, ROOT / "docker-compose.yml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


SECRETS = sorted(set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text())))


@pytest.mark.parametrize("name", SECRETS)
def test_compose_refuses_to_start_without_a_secret(name: str, tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    (tmp_path / "env").write_text(
        "\n".join(line for line in lines if not line.startswith(f"{name}="))
    )
    refused = _compose(tmp_path / "env", "config", "--quiet")
    assert refused.returncode != 0
    assert name in refused.stderr


def test_no_service_of_compose_has_more_rights_than_it_needs() -> None:
    for name, service in _services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"], name
        assert not service.get("privileged"), name
        assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory"}, name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        _assert_not_root(name, service)


def _assert_not_root(name: str, service: dict[str, Any]) -> None:
    if "user" in service:
        assert int(service["user"].split(":")[0]) > 0, name
    else:
        image = service["image"].removeprefix("inn-automl/").split(":")[0]
        assert _instructions(ROOT / f"infra/docker/{image}.Dockerfile", "USER") == [
            "10001:10001"
        ], name


def test_every_running_service_of_compose_has_a_health_check_and_restarts() -> None:
    for name, service in _services().items():
        if name in ONE_SHOTS:
            continue
        image_name = service["image"].removeprefix("inn-automl/").split(":")[0]
        image = ROOT / f"infra/docker/{image_name}.Dockerfile"
        assert "test" in service.get("healthcheck", {}) or _instructions(image, "HEALTHCHECK"), name
        assert service["restart"] == "unless-stopped", name


def test_what_compose_waits_for_can_become_true() -> None:
    for name, service in _services().items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
            assert how["condition"] == expected, f"{name} on {other}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles(path: Path) -> None:
    checked = subprocess.run(
        [Path(sys.executable).parent / "hadolint", path], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    assert _instructions(path, "USER")[-1] == "10001:10001"
    assert _instructions(path, "HEALTHCHECK")
    assert "org.opencontainers.image.title" in path.read_text()
    sources = [
        s
        for line in _instructions(path, "COPY")
        if "--from" not in line
        for s in shlex.split(line)[:-1]
    ]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    for source in sources:  # .dockerignore leaves everything out that it does not name
        assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_fit_the_schemas_of_kubernetes(overlay: str) -> None:
    documents = _manifests(overlay)
    documents += YAML(typ="safe", pure=True).load_all(
        (KUBERNETES / "secrets.example.yaml").read_text()
    )
    for document in documents:
        if not document["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ray_cluster(overlay: str) -> None:
    [cluster] = [d for d in _manifests(overlay) if d["kind"] == "RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    groups = {"headGroupSpec", "workerGroupSpecs"}
    assert spec.keys() == groups | {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
    }
    assert spec["rayVersion"] == LIMITS["ray"]
    assert [group["groupName"] for group in spec["workerGroupSpecs"]] == ["cpu", "gpu"][
        : 1 + overlay.endswith("gpu")
    ]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        [container] = group["template"]["spec"]["containers"]
        assert container["image"].startswith("inn-automl/worker:")
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # KubeRay's own template of a pod is Kubernetes', so a pod of it must fit Kubernetes' schema.
    for pod in _pod_specs(cluster):
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod}
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_no_pod_has_more_rights_than_it_needs() -> None:
    for where, pod, container in _containers():
        assert pod["securityContext"]["runAsNonRoot"], where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, where
        assert container["resources"].keys() == {"requests", "limits"}, where


def test_every_running_pod_that_can_be_asked_has_probes() -> None:
    for where, _, container in _containers():
        if not where.startswith(("Job/", "DaemonSet/agent")):  # the agent serves nothing
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), where


def test_secrets_and_config_maps_that_pods_name_exist() -> None:
    documents = _manifests("overlays/gpu") + list(
        YAML(typ="safe", pure=True).load_all((KUBERNETES / "secrets.example.yaml").read_text())
    )
    known = {
        (d["kind"], d["metadata"]["name"]): {**d.get("data", {}), **d.get("stringData", {})}
        for d in documents
    }
    for where, pod, container in _containers():
        for source in container.get("envFrom", []):
            kind = "Secret" if "secretRef" in source else "ConfigMap"
            assert (kind, next(iter(source.values()))["name"]) in known, where
        for variable in container.get("env", []):
            if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert key["key"] in known["Secret", key["name"]], where
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in known, where
        names = {volume["name"] for volume in pod["volumes"]} | {"data"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names, where


def test_our_variables_are_ones_that_somebody_reads() -> None:
    settings = {f"INN_AUTOML_{name.upper()}" for name in Settings.model_fields}
    # of `inn-automl migrate`
    named = _named_variables() - {"INN_AUTOML_ADMIN_KEY", "INN_AUTOML_AGENT_KEY"}
    assert named - settings - OTHER_VARIABLES == set()
    assert {"INN_AUTOML_DATABASE_URL", "INN_AUTOML_STORAGE_URL"} <= named


def test_our_commands_are_ones_that_exist() -> None:
    checked = set()
    for where, words in _entry_commands():
        if words[:1] == ["inn-automl"]:
            name, *arguments = words[1:]
            command = commands.get_command(click.Context(commands), name)
            assert command is not None, f"{where} starts `inn-automl {name}`, which does not exist"
            if arguments != ["--help"]:
                # parses, runs nothing; raises on an option that is not there
                command.make_context(name, arguments)
            checked.add(name)
    assert checked == {"agent", "coordinator", "migrate"}
