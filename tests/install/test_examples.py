"""The examples for Kubernetes and Compose hold to the published schemas, and lock the agent up."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFEST = EXAMPLES / "kubernetes" / "edge-agent.yaml"
VERSIONS = ("1.30", "1.37")
"""The oldest and newest that kubernetes-validate ships schemas of and this was written for."""


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def one(kind: str) -> dict[str, Any]:
    return next(each for each in documents() if each["kind"] == kind)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["Namespace", "ConfigMap", "Secret", "DaemonSet"])
def test_every_object_holds_to_the_schema_of_kubernetes(kind: str, version: str) -> None:
    kubernetes_validate.validate(one(kind), version, strict=True)


def test_a_misspelt_field_is_seen() -> None:
    wrong = one("DaemonSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_pods_are_probed_and_keep_the_standard_restricted() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, Restricted."""
    pod = one("DaemonSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not pod.get("hostNetwork") and not pod.get("hostPID")
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod["containers"][0][probe]["exec"]["command"] == ["edge-agent", "status", "--check"]


def test_each_pod_has_a_claim_of_its_own() -> None:
    volumes = one("DaemonSet")["spec"]["template"]["spec"]["volumes"]
    state = next(each for each in volumes if each["name"] == "state")
    claim = state["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    whole = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "x"},
        "spec": claim,
    }  # fmt: skip
    kubernetes_validate.validate(whole, VERSIONS[-1], strict=True)
    assert not any("hostPath" in each or "persistentVolumeClaim" in each for each in volumes)


def test_what_the_pods_ask_for_is_there() -> None:
    names = {
        "configMapKeyRef": set(one("ConfigMap")["data"]),
        "secretKeyRef": set(one("Secret")["stringData"]),
    }
    pod = one("DaemonSet")["spec"]["template"]["spec"]
    for container in (*pod["containers"], *pod["initContainers"]):
        for variable in container["env"]:
            for kind, reference in variable.get("valueFrom", {}).items():
                assert kind == "fieldRef" or reference["key"] in names[kind]


def test_the_compose_file_holds_to_its_schema_and_locks_the_agent_up() -> None:
    found = yaml.safe_load((EXAMPLES / "compose" / "compose.yaml").read_text())
    schema = json.loads(
        resources.files("check_jsonschema")
        .joinpath("builtin_schemas/vendor/compose-spec.json")
        .read_text()
    )
    jsonschema.validate(found, schema)
    service = found["services"]["edge-agent"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"edge-agent": {**service, "read_onyl": True}}}, schema)
