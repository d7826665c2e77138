"""The service: a unit that systemd accepts and finds hardened; put in and taken away whole."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_agent import config as configs
from edge_agent import service as services
from edge_agent.cli import app
from edge_agent.service import Service
from edge_contract.errors import EdgeError, InputFault, MachineFault

EXPOSURE_MAX = 15
"""Tenths, as ``systemd-analyze security`` of Debian 12 counts: 1.5 was measured."""
PROGRAM = "/opt/edge-pack/bin/edge-agent"
SERVICE = Service(program=PROGRAM)
UNIT = Path("etc/systemd/system/edge-agent.service")


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Every path below ``root`` with its mode and what it holds."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            str(path.readlink())
            if path.is_symlink()
            else path.read_text()
            if path.is_file()
            else "",
        )
        for path in root.rglob("*")
    }


@pytest.fixture(params=["empty", "a machine", "a machine with settings"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The root of a file system."""
    made = tmp_path / "root"
    made.mkdir()
    if request.param != "empty":
        (made / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
        (made / "etc/systemd/system/other.service").write_text("[Service]\n")
        (made / "var/lib").mkdir(parents=True)
    if request.param == "a machine with settings":
        (made / "etc/edge-agent").mkdir()
        (made / "etc/edge-agent/agent.toml").write_text(
            '[agent]\ndevice = "pi1"\nfleet = "home"\n[broker]\nurl = "mqtt://localhost"\n'
        )
    return made


# -- the unit ------------------------------------------------------------------------------------


@pytest.fixture(params=["", "daemon"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with a program that exists, as systemd-analyze wants it."""
    program = Path(shutil.which("true") or "/bin/true")
    path = tmp_path / services.NAME
    path.write_text(services.unit(Service(program=str(program), user=request.param), ["/etc/x"]))
    return path


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze not installed: apt-get install systemd")
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False,
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "info"},
    )  # fmt: skip


def test_systemd_understands_every_line(unit: Path) -> None:
    done = analyze("verify", "--man=no", unit)
    said = [line for line in done.stderr.splitlines() if services.NAME in line]
    assert (done.returncode, said) == (0, [])


def test_a_line_that_systemd_does_not_know_is_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSystems="))
    assert "'ProtectSystems'" in analyze("verify", "--man=no", unit).stderr


def test_the_exposure_stays_below_what_was_measured(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout


def test_a_softer_unit_is_over_the_threshold(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("PrivateUsers=yes\n", ""))
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)
    assert done.returncode != 0


def test_the_unit_has_the_paths_of_this_installation() -> None:
    service = Service(
        program="/srv/edge/bin/edge-agent", config="/etc/iot/pi.toml", folder="/var/lib/iot/pi",
        user="iot",
    )  # fmt: skip
    lines = services.unit(service).splitlines()
    for line in (
        "ExecStart=/srv/edge/bin/edge-agent run --config /etc/iot/pi.toml",
        "EnvironmentFile=-/etc/iot/environment",
        "LoadCredential=settings:/etc/iot",
        "StateDirectory=iot/pi",
        "User=iot",
    ):
        assert line in lines
    assert "DynamicUser=yes" not in lines


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (Service(program="/home/pi/venv/bin/edge-agent"), "sees no home folders"),
        (Service(program="/root/.venv/bin/edge-agent"), "sees no home folders"),
        (Service(program=PROGRAM, config="/home/pi/agent.toml"), "sees no home folders"),
        (Service(program="edge-agent"), "absolute path"),
        (Service(program="/opt/a b/edge-agent"), "absolute path"),
        (Service(program="/opt/x\nUser=root"), "absolute path"),
        (Service(program="/opt/%h/edge-agent"), "absolute path"),
        (Service(program="/opt/../home/pi/edge-agent"), "absolute path"),
        (Service(program=PROGRAM, config="/etc/agent.toml"), "whole folder"),
        (Service(program=PROGRAM, user="root"), "a user of its own"),
        (Service(program=PROGRAM, user="nobody"), "a user of its own"),
        (Service(program=PROGRAM, user="a b"), "a user of its own"),
        (Service(program=PROGRAM, folder="/srv/models"), "below /var/lib"),
        (Service(program=PROGRAM, folder="/var/lib"), "below /var/lib"),
        (Service(program=PROGRAM, folder="/var/lib/../../etc"), "absolute path"),
    ],
)
def test_what_could_not_work_is_refused_and_nothing_is_written(
    service: Service, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputFault, match=said):
        services.install(service, tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- install and uninstall -----------------------------------------------------------------------


def test_after_an_uninstall_the_tree_is_as_before(root: Path) -> None:
    before = tree(root)
    services.install(SERVICE, root)
    assert tree(root) != before
    assert (root / UNIT).stat().st_mode & 0o777 == 0o644
    (root / "etc/systemd/system/multi-user.target.wants").mkdir(exist_ok=True)
    (root / "etc/systemd/system/multi-user.target.wants/edge-agent.service").symlink_to(f"/{UNIT}")
    services.uninstall(root)
    if "etc/systemd/system/multi-user.target.wants" in before:
        (root / "etc/systemd/system/multi-user.target.wants").mkdir(exist_ok=True)
    assert tree(root) == before
    assert services.uninstall(root) == []


def test_a_purge_takes_settings_keys_state_and_drop_ins(root: Path) -> None:
    services.install(SERVICE, root)
    for name in ("agent.toml", "agent.password", "device.key"):
        (root / "etc/edge-agent" / name).write_text("x")
    (root / f"{UNIT}.d").mkdir()
    (root / f"{UNIT}.d/override.conf").write_text("[Service]\nMemoryMax=200M\n")
    (root / "var/lib/private/edge-agent/slots").mkdir(parents=True)
    (root / "var/lib/edge-agent").symlink_to("private/edge-agent")
    services.uninstall(root, purge=True)
    left = {path for path in tree(root) if "edge-agent" in path}
    assert left == set()


@pytest.mark.parametrize("edited", ["", "..", ".", "edge-agent other", "a/../../etc"])
def test_a_purge_removes_no_folder_that_an_edited_unit_names(root: Path, edited: str) -> None:
    services.install(SERVICE, root)
    (root / "var/lib/private").mkdir(parents=True, exist_ok=True)
    (root / "var/lib/others").write_text("x")
    unit = root / UNIT
    text = unit.read_text().replace("StateDirectory=edge-agent\n", f"StateDirectory={edited}\n")
    unit.write_text(text)
    with pytest.raises(InputFault, match="StateDirectory="):
        services.uninstall(root, purge=True)
    assert (root / "var/lib/others").read_text() == "x" and unit.exists()


def test_without_a_purge_settings_and_state_stay(root: Path) -> None:
    services.install(SERVICE, root)
    (root / "etc/edge-agent/agent.toml").write_text("x")
    (root / "var/lib/edge-agent/slots").mkdir(parents=True)
    services.uninstall(root)
    assert (root / "etc/edge-agent/agent.toml").read_text() == "x"
    assert (root / "var/lib/edge-agent/slots").is_dir()
    assert not (root / UNIT).exists()


def test_twice_is_as_once_and_a_change_of_paths_is_written(root: Path) -> None:
    before = tree(root)
    services.install(SERVICE, root)
    once = tree(root)
    assert services.install(SERVICE, root).wrote == ()
    assert tree(root) == once
    moved = services.install(Service(program="/opt/new/bin/edge-agent"), root)
    assert moved.wrote == (root / UNIT,)
    services.uninstall(root)
    assert tree(root) == before


def test_a_dry_run_writes_nothing_and_says_what_it_would(root: Path) -> None:
    before = tree(root)
    done = services.install(SERVICE, root, dry_run=True)
    assert root / UNIT in done.wrote
    assert f"ExecStart={PROGRAM}" in done.text
    assert tree(root) == before


def test_somebody_elses_unit_is_left_alone(root: Path) -> None:
    (root / UNIT).parent.mkdir(parents=True, exist_ok=True)
    (root / UNIT).write_text("[Service]\nExecStart=/bin/mine\n")
    before = tree(root)
    for act in (lambda: services.install(SERVICE, root), lambda: services.uninstall(root)):
        with pytest.raises(InputFault, match="not written by install-service"):
            act()
    assert tree(root) == before


def test_the_example_that_it_writes_is_the_one_of_the_documentation(root: Path) -> None:
    services.install(SERVICE, root)
    example = Path(__file__).parents[2] / "agent" / "agent.example.toml"
    assert (root / "etc/edge-agent/agent.example.toml").read_text() == example.read_text()


# -- the commands --------------------------------------------------------------------------------


def call(*words: str | Path) -> tuple[str, EdgeError | None]:
    """What ``edge-agent`` printed, and the error that ended it."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    error = done.exception if isinstance(done.exception, EdgeError) else None
    assert error or not done.exception or isinstance(done.exception, SystemExit), done.exception
    return done.output, error


def test_the_commands_say_what_they_did_and_what_comes_next(root: Path) -> None:
    before = tree(root)
    printed, error = call("install-service", "--prefix", root, "--program", PROGRAM)
    assert error is None
    assert f"wrote {root / UNIT}" in printed
    assert f"next: systemctl --root={root} enable edge-agent.service" in printed
    settled = (root / "etc/edge-agent/agent.toml").exists()
    assert ("edge-agent enroll" in printed) != settled
    printed, _ = call("install-service", "--prefix", root, "--program", PROGRAM)
    assert "unchanged" in printed
    printed, _ = call("uninstall-service", "--prefix", root)
    assert f"removed {root / UNIT}" in printed
    assert tree(root) == before
    assert "nothing to remove" in call("uninstall-service", "--prefix", root)[0]


def test_the_state_folder_is_the_one_of_the_settings(root: Path) -> None:
    path = root / "etc/edge-agent/agent.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '[agent]\ndevice = "pi1"\nfleet = "home"\nfolder = "/var/lib/models"\n'
        '[broker]\nurl = "mqtt://localhost"\n'
    )
    printed, _ = call("install-service", "--prefix", root, "--program", PROGRAM, "--dry-run")
    assert "StateDirectory=models\n" in printed
    path.write_text(path.read_text().replace("/var/lib/models", "/mnt/models"))
    _, error = call("install-service", "--prefix", root, "--program", PROGRAM)
    assert "below /var/lib, got /mnt/models" in str(error)


def test_options_that_contradict_are_refused(tmp_path: Path) -> None:
    _, error = call("install-service", "--user", "nobody", "--dynamic")
    assert isinstance(error, InputFault)
    _, error = call("install-service", "--now", "--prefix", tmp_path)
    assert isinstance(error, InputFault)


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_without_systemd_the_machine_is_at_fault_and_stays_as_it_was() -> None:
    for command in ("install-service", "uninstall-service"):
        _, error = call(command)
        assert isinstance(error, MachineFault)
        assert "not started by systemd" in str(error)
    assert not Path("/", UNIT).exists()


def test_a_user_who_does_not_exist_is_named() -> None:
    _, error = call("install-service", "--user", "no-such-user")
    assert "no user 'no-such-user'" in str(error)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_tree_that_is_not_ours_is_refused_without_a_traceback() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    for mode in (0o755, 0o700):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(mode)
            child = os.fork()
            if child == 0:
                os.setuid(nobody)
                try:
                    services.install(SERVICE, Path(folder))
                except MachineFault as error:
                    os._exit(7 if "sudo" in str(error) else 8)
                finally:
                    os._exit(9)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert list(Path(folder).iterdir()) == []


def test_python_of_a_home_folder_is_told_before_anything_is_written() -> None:
    with pytest.raises(InputFault, match="/opt/edge-pack"):
        services.check_seen("edge-agent", "/root/.pyenv/versions/3.12")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("handed", [True, False])
def test_a_key_that_only_root_can_read_reaches_the_service_through_systemd(handed: bool) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        settings, credentials = Path(folder, "agent.toml"), Path(folder, "credentials")
        settings.write_text(
            '[agent]\ndevice = "pi1"\nfleet = "home"\n'
            '[broker]\nurl = "mqtt://pi1@localhost"\npassword_file = "agent.password"\n'
        )
        Path(folder, "agent.password").write_text("secret\n")
        Path(folder, "agent.password").chmod(0o600)
        credentials.mkdir()
        if handed:  # as LoadCredential=settings:FOLDER does
            (credentials / "settings_agent.password").write_text("secret\n")
        child = os.fork()
        if child == 0:
            os.setuid(nobody)
            try:
                found = configs.load(settings, {"CREDENTIALS_DIRECTORY": str(credentials)})
                os._exit(7 if found.password == "secret" else 8)
            except (InputFault, MachineFault):
                os._exit(5)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (7 if handed else 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_what_root_wrote_into_a_services_state_is_handed_over(tmp_path: Path) -> None:
    daemon = pwd.getpwnam("daemon").pw_uid
    (tmp_path / "private/tuf").mkdir(parents=True)
    (tmp_path / "private/tuf/root.json").write_text("{}")
    (tmp_path / "outside").write_text("root's")
    (tmp_path / "private/link").symlink_to(tmp_path / "outside")
    (tmp_path / "state").symlink_to("private")
    services.hand_over(tmp_path / "state")
    assert (tmp_path / "private/tuf/root.json").stat().st_uid == 0
    os.chown(tmp_path / "private", daemon, -1)
    services.hand_over(tmp_path / "state")
    owners = {path.name: path.lstat().st_uid for path in (tmp_path / "private").rglob("*")}
    assert owners == {"tuf": daemon, "root.json": daemon, "link": 0}
    assert (tmp_path / "outside").stat().st_uid == 0
    services.hand_over(tmp_path / "absent")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_service_cannot_have_the_systems_files_handed_over(tmp_path: Path) -> None:
    daemon = pwd.getpwnam("daemon").pw_uid
    state, shadow = tmp_path / "state", tmp_path / "etc/shadow"
    for folder in (state, shadow.parent):
        folder.mkdir()
    shadow.write_text("root's")
    (state / "hard").hardlink_to(shadow)
    (state / "soft").symlink_to(shadow)
    (state / "folder").symlink_to(shadow.parent)
    os.mkfifo(state / "pipe")
    (state / "mine.json").write_text("{}")
    os.chown(state, daemon, -1)
    services.hand_over(state)
    assert (shadow.stat().st_uid, shadow.parent.stat().st_uid) == (0, 0)
    assert (state / "mine.json").stat().st_uid == daemon
