"""The image of Dockerfile.edge, built for real and run for real: it does the main job, locked up.

With ``EDGE_IMAGE=FOLDER`` the image of an earlier ``tests/install/image.sh FOLDER`` is run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_contract import broker_url, messages
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.broker import BrokerThread

TREE = Path(__file__).parents[2]
SIZE_MAX_BYTES = 200_000_000
LOCKED = (
    "--network", "host", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all",
    "--memory", "256m", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777",
    "--ulimit",
    "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--log-driver", "k8s-file",
)  # fmt: skip
FORBIDDEN = (
    "cc", "gcc", "c++", "clang", "as", "ld", "make", "pip", "pip3", "sh", "bash", "dash", "busybox",
    "apt", "apt-get", "dpkg", "perl", "curl", "wget", "su", "mount",
)  # fmt: skip

LOOK = """
import json, os
writable, special, folders = [], [], []
for top, _, names in os.walk("/"):
    if top.startswith(("/proc", "/sys", "/dev")):
        continue
    for path in (top, *(os.path.join(top, name) for name in names)):
        if os.path.islink(path):
            continue
        if os.access(path, os.W_OK):
            writable.append(path)
        if os.lstat(path).st_mode & 0o6000:
            special.append(path)
try:
    open("/opt/edge-pack/x", "w")
except OSError as error:
    said = error.strerror
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "writable": writable, "special": special,
    "said": said, "capabilities": status["CapBnd"].strip(), "nnp": status["NoNewPrivs"].strip(),
}))
"""


def test_the_dockerfile_satisfies_its_critic() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), TREE / "Dockerfile.edge"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@dataclass(frozen=True)
class Image:
    """A built image in a store of its own."""

    folder: Path
    driver: str

    def podman(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman on this store; its output as text."""
        done = subprocess.run(
            [
                "podman", "--root", self.folder / "store", "--runroot", self.folder / "run",
                "--storage-driver", self.driver, "--runtime", "runc", "--cgroup-manager",
                "cgroupfs", "--events-backend", "none", "--log-level", "fatal", *words,
            ],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done

    def inspect(self) -> dict[str, Any]:
        """The image's settings."""
        found: dict[str, Any] = json.loads(
            self.podman("image", "inspect", "localhost/edge-agent").stdout
        )[0]
        return found


@pytest.fixture(scope="module")
def image(kit: Any) -> Iterator[Image]:
    """The image, its base made from Debian's packages."""
    kit.want("buildah", "mmdebstrap", "podman", "runc", package="buildah mmdebstrap podman runc")
    if "bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("the build borrows the apt settings of a Debian 12")
    if kept := os.environ.get("EDGE_IMAGE"):
        yield Image(
            Path(kept).absolute(), "overlay" if Path(kept, "store/overlay").is_dir() else "vfs"
        )
        return
    folder = Path(tempfile.mkdtemp(prefix="edge-image-"))
    try:
        built = subprocess.run(
            [TREE / "tests" / "install" / "image.sh", folder],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert built.returncode == 0, built.stdout + built.stderr
        yield Image(folder, built.stdout.split()[-1])
    finally:
        for mounted in folder.glob("store/overlay"):
            subprocess.run(["umount", "--lazy", mounted], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    """A running broker on loopback."""
    with BrokerThread() as running:
        yield running


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_says_how_it_wants_to_run(image: Image) -> None:
    found = image.inspect()
    settings = found["Config"]
    print(f"edge-agent image: {found['Size'] / 1e6:.0f} MB on {image.driver}")
    assert found["Size"] < SIZE_MAX_BYTES
    assert settings["User"] == "10001:10001"
    assert settings["Entrypoint"] == ["edge-agent"]
    assert list(settings["Volumes"]) == ["/var/lib/edge-agent"]
    assert settings["StopSignal"] == "SIGTERM"
    assert found["Healthcheck"]["Test"] == ["CMD", "edge-agent", "status", "--check"]


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_nothing_in_the_image_compiles_installs_or_is_written(image: Image) -> None:
    look = image.podman("run", "--rm", *LOCKED, "--entrypoint", "python", "localhost/edge-agent",
                        "-c", LOOK)  # fmt: skip
    seen = json.loads(look.stdout)
    assert (seen["uid"], seen["gid"]) == (10001, 10001)
    assert seen["writable"] in (["/tmp", "/var/lib/edge-agent"], ["/var/lib/edge-agent", "/tmp"])
    assert seen["special"] == []
    assert seen["said"] == "Read-only file system"
    assert (int(seen["capabilities"], 16), seen["nnp"]) == (0, "1")

    root = Path(image.podman("image", "mount", "localhost/edge-agent").stdout.strip())
    assert (root / "usr/bin/python3.11").exists()
    programs = {
        path.name for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o111
    }
    assert programs & set(FORBIDDEN) == set()
    assert not [path for path in root.rglob("*") if path.name in ("pip", "ensurepip", "setuptools")]


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_image_enrols_pulls_proves_and_answers(
    image: Image, broker: BrokerThread, digit_bundles: dict[str, Path], kit: Any, tmp_path: Path
) -> None:
    url = broker.url
    fingerprint = kit.publish(tmp_path / "keys", url, *digit_bundles.values())
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'[agent]\ndevice = "box"\nfleet = "{kit.fleet}"\n[broker]\nurl = "{url}"\n'
        "[trial]\nrequests = 1\nseconds = 1.0\n[update]\nself_test_runs = 3\n"
    )
    options = (*LOCKED, "-v", "state:/var/lib/edge-agent",
               "-v", f"{settings}:/etc/edge-agent/agent.toml:ro")  # fmt: skip
    enrolled = image.podman("run", "--rm", *options, "localhost/edge-agent", "enroll", "--root",
                            fingerprint)  # fmt: skip
    assert f"box of fleet {kit.fleet} trusts the root" in enrolled.stdout

    image.podman("run", "--detach", "--name", "agent", *options, "localhost/edge-agent")
    try:

        def committed() -> bool:
            told = image.podman("exec", "agent", "edge-agent", "status", "--json", check=False)
            running = image.podman("ps", "--quiet", "--filter", "name=agent").stdout
            assert running, image.podman("logs", "agent").stderr
            models = json.loads(told.stdout or "{}").get("models", {})
            return set(digit_bundles) == {
                name for name, model in models.items() if model["phase"] == "committed"
            }

        kit.wait_for(committed, "both models committed in the container")
        assert image.podman("healthcheck", "run", "agent").returncode == 0
        for name in digit_bundles:
            answer = ask(url, kit.fleet, name, kit)
            assert answer.predictions, answer
            assert answer.version == "1.0"
            assert answer.predictions[0].label in range(10)

        image.podman("stop", "--time", "30", "agent")
        state = json.loads(image.podman("inspect", "agent").stdout)[0]["State"]
        assert state["ExitCode"] == 0, image.podman("logs", "agent").stderr
    finally:
        print(image.podman("logs", "agent", check=False).stderr)
        image.podman("rm", "--force", "--time", "0", "agent", check=False)
        image.podman("volume", "rm", "--force", "state", check=False)


@pytest.mark.slow
@pytest.mark.xdist_group("image")
def test_the_pod_of_the_kubernetes_example_enrols_once_and_is_well(
    image: Image, broker: BrokerThread, digit_bundles: dict[str, Path], kit: Any, tmp_path: Path
) -> None:
    fingerprint = kit.publish(tmp_path / "keys", broker.url, *digit_bundles.values())
    pod = next(
        each["spec"]["template"]["spec"]
        for each in yaml.safe_load_all(
            (TREE / "examples" / "kubernetes" / "edge-agent.yaml").read_text()
        )
        if each["kind"] == "DaemonSet"
    )
    values = {"ROOT": fingerprint, "BROKER": broker.url, "FLEET": kit.fleet, "NODE": "node-1",
              "EDGE_AGENT_PASSWORD": ""}  # fmt: skip

    def start(container: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        """As a kubelet reads it: command is the entry point, $(NAME) is a variable."""
        env = {
            each["name"]: values.get(each["name"], each.get("value")) for each in container["env"]
        }
        args = list(container["args"])
        for name, value in env.items():
            args = [word.replace(f"$({name})", value) for word in args]
        words = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        command = container.get("command", ["edge-agent"])
        return image.podman(
            "run", *options, *LOCKED, *words, "-v", "pod:/var/lib/edge-agent",
            "--entrypoint", json.dumps(command), "localhost/edge-agent", *args,
        )  # fmt: skip

    enrol, agent = pod["initContainers"][0], pod["containers"][0]
    assert "node-1 of fleet" in start(enrol, "--rm").stdout
    assert start(enrol, "--rm").stdout == ""  # a node that restarts is enrolled already
    start(agent, "--detach", "--name", "pod")
    try:
        probe = agent["livenessProbe"]["exec"]["command"]
        kit.wait_for(
            lambda: image.podman("exec", "pod", *probe, check=False).returncode == 0, "a good probe"
        )
    finally:
        print(image.podman("logs", "pod", check=False).stderr)
        image.podman("rm", "--force", "--time", "0", "pod", check=False)
        image.podman("volume", "rm", "--force", "pod", check=False)


def ask(url: str, fleet: str, model: str, kit: Any) -> messages.Answer:
    """One request over MQTT; its answer."""
    heard: list[Message] = []
    topics = Topics(fleet)
    settings = LinkConfig(broker=broker_url.parse(url), client_id="asker")
    link = Link(settings, on_message=heard.append)
    link.start(60)
    try:
        link.subscribe([topics.answers("box", model)]).wait(60)
        row = {f"pixel_{i}": 0.5 for i in range(64)}
        link.publish(topics.requests("box", model), json.dumps(row).encode())
        return messages.decode(kit.wait_for(lambda: heard, "an answer")[0].payload, messages.Answer)
    finally:
        link.stop()
