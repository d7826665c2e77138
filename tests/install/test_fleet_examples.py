"""The fleet's Compose file and Kubernetes manifests hold to the published schemas, lock everything
up, and start commands that there are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer.main
import yaml
from free_ports import free_port

from edge_contract.access import mosquitto
from edge_fleet import cli
from edge_fleet.broker.mosquitto import find_mosquitto

TREE = Path(__file__).parents[2]
COMPOSE = TREE / "examples" / "fleet-compose"
MANIFEST = TREE / "examples" / "kubernetes-fleet" / "edge-fleet.yaml"
VERSIONS = ("1.30", "1.37")
STORE = {"EDGE_FLEET_DB", "EDGE_FLEET_DB_PASSWORD_FILE"}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def check_command(words: list[str], *, expand: bool = False) -> None:
    """``edge-fleet WORDS`` is a command with these options, as Typer reads them."""
    name, *rest = [word.replace("$(FLEET)", "plant") if expand else word for word in words]
    root = typer.main.get_command(cli.app)
    command = root.commands[name]  # type: ignore[attr-defined]
    with command.make_context(name, rest, resilient_parsing=False) as context:
        assert context.params


# -- Compose -------------------------------------------------------------------------------


def compose_schema() -> Any:
    return json.loads(
        resources.files("check_jsonschema")
        .joinpath("builtin_schemas/vendor/compose-spec.json")
        .read_text()
    )


def test_the_compose_file_holds_to_its_schema_and_a_misspelt_word_does_not() -> None:
    found = compose()
    jsonschema.validate(found, compose_schema())
    found["services"]["api"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, compose_schema())


def test_every_service_is_locked_up_bounded_and_looked_after() -> None:
    found = compose()
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges"], name
        assert service["user"].split(":")[0] not in ("0", "root"), name
        assert service["mem_limit"] and service["pids_limit"], name
        assert "healthcheck" in service or "tools" in service["profiles"], name
        for secret in service.get("secrets", []):
            assert found["secrets"][secret]["file"], name
        said = json.dumps(service.get("environment", {}))
        assert not any(word in said for word in ("PASSWORD:", "change-me")), name
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or value.startswith("/run/secrets/"), variable


def test_only_broker_and_dashboard_are_reached_from_outside() -> None:
    found = compose()
    ports = {name: each["ports"] for name, each in found["services"].items() if "ports" in each}
    assert ports == {"broker": ["8883:8883"], "api": ["8443:8443"]}
    assert found["networks"]["inside"] == {"internal": True}


@pytest.mark.parametrize("name", ["collector-0", "collector-1", "api", "doctor", "backup"])
def test_what_compose_starts_is_a_command(name: str) -> None:
    service = compose()["services"][name]
    check_command(service["command"])
    if "collector" in name:
        words = service["healthcheck"]["test"][2:]
        check_command(words)
        assert words[-1] in service["command"] and words[-1] == f"--ordinal={name[-1]}"


def test_the_brokers_settings_are_what_broker_acl_writes() -> None:
    written = mosquitto.conf(mosquitto.Listeners("/accounts", tls_port=8883))
    assert (COMPOSE / "mosquitto.conf").read_text().endswith(written)


def test_mosquitto_takes_its_settings_with_accounts_of_broker_acl(tmp_path: Path) -> None:
    binary, port = find_mosquitto(), free_port()
    if binary is None:
        pytest.skip("no mosquitto installed (Debian: apt-get install mosquitto)")
    accounts = tmp_path / "accounts"
    subprocess.run(
        [sys.executable, "-m", "edge_pack", "broker-acl", accounts, "--fleet", "plant",
         "--tls", "localhost", "--device", "pi1"],
        check=True, capture_output=True,
    )  # fmt: skip
    text = (COMPOSE / "mosquitto.conf").read_text()
    text = text.replace("/accounts", str(accounts)).replace("/mosquitto/data", str(tmp_path))
    text = text.replace("listener 8883", f"listener {port} 127.0.0.1")
    (tmp_path / "mosquitto.conf").write_text(f"{text}\nuser root\n")
    broker = subprocess.Popen([binary, "-c", tmp_path / "mosquitto.conf"], stderr=subprocess.PIPE)
    try:
        password = (accounts / "secrets" / "plant.server.password").read_text().strip()
        done = subprocess.run(
            [sys.executable, "-m", "edge_fleet", "doctor", "--db", f"sqlite:///{tmp_path}/none.db",
             "--broker", f"mqtts://plant.server@localhost:{port}", "--fleet", "plant",
             "--ca-file", accounts / "tls" / "ca.pem", "--json"],
            capture_output=True, text=True, check=False,
            env={"EDGE_FLEET_PASSWORD_FILE": str(accounts / "secrets" / "plant.server.password")},
        )  # fmt: skip
        found = {x["what"]: x["state"] for x in json.loads(done.stdout)["findings"]}
    finally:
        broker.kill()
        broker.communicate()
    assert found["may read and write what a fleet server needs"] == "ok", found
    assert password not in done.stdout
    assert not [what for what, state in found.items() if "whoever has no name" in what]


# -- Kubernetes ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_holds_to_the_schema_of_kubernetes(version: str) -> None:
    kinds = [each["kind"] for each in documents()]
    wanted = {"StatefulSet", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    assert {*wanted, "Ingress", "CronJob", "ConfigMap", "Namespace"} <= set(kinds)
    for each in documents():
        kubernetes_validate.validate(each, version, strict=True)


def test_a_misspelt_field_is_seen() -> None:
    wrong = next(each for each in documents() if each["kind"] == "StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def pods() -> dict[str, dict[str, Any]]:
    found = {}
    for each in documents():
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            found[each["metadata"]["name"]] = spec["template"]["spec"]
    return found


def test_the_pods_keep_the_standard_restricted_and_start_commands() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, Restricted."""
    config = next(each for each in documents() if each["kind"] == "ConfigMap")["data"]
    assert set(pods()) == {"collector", "api", "backup"}
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        check_command(container["args"], expand=True)
        variables = {each["name"] for each in container["env"]}
        assert variables >= STORE, name
        for each in container["env"]:
            key = each.get("valueFrom", {}).get("configMapKeyRef", {}).get("key")
            assert key is None or key in config
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted <= {each["name"] for each in pod["volumes"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            command = container.get(probe, {}).get("exec", {}).get("command")
            if command:
                assert not any("$(" in word for word in command), "probes expand nothing"
                check_command(command[1:])


def test_whoever_selects_pods_selects_the_right_ones() -> None:
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in documents()
        if each["kind"] in ("StatefulSet", "Deployment")
    }
    for each in documents():
        name, spec = each["metadata"]["name"], each.get("spec", {})
        match each["kind"]:
            case "Service":
                assert spec["selector"] == labels[name]
            case "PodDisruptionBudget" | "StatefulSet" | "Deployment":
                assert spec["selector"]["matchLabels"] == labels[name]


# -- the image -----------------------------------------------------------------------------


def test_the_dockerfile_satisfies_its_critic_and_runs_as_nobody_of_note() -> None:
    critic = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [critic, TREE / "Dockerfile.fleet"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    text = (TREE / "Dockerfile.fleet").read_text()
    users = {each["user"] for each in compose()["services"].values() if "fleet" in each["image"]}
    assert users == {"10002:10002"} and "\nUSER 10002:10002\n" in text
    assert all(pod["securityContext"]["runAsUser"] == 10002 for pod in pods().values())


# -- systemd -------------------------------------------------------------------------------


def test_systemd_understands_the_unit_and_the_command_in_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze not installed (Debian: apt-get install systemd)")
    text = (TREE / "fleet" / "edge-fleet.service").read_text()
    line = next(each for each in text.splitlines() if each.startswith("ExecStart="))
    program, *words = line.removeprefix("ExecStart=").split()
    check_command(words)
    unit = tmp_path / "edge-fleet.service"
    unit.write_text(text.replace(program, shutil.which("true") or "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [each for each in done.stderr.splitlines() if unit.name in each] == []
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-300:]
