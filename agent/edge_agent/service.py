"""The agent as a systemd service: what is written, what for, and how it is taken away again.

Guards: nothing is touched that this did not write: a unit of somebody else is refused, and folders
that were there before stay. What an uninstall leaves behind is state and settings, or with
``purge`` nothing. ``prefix`` is the root of another file system, such as an image's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath

from msgspec import Struct

from edge_agent.config import DEFAULT_PATH
from edge_agent.settings import DEFAULT_FOLDER
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, write_atomic

NAME = "edge-agent.service"
EXAMPLE = "agent.example.toml"
UNITS = "/etc/systemd/system"
STATE_ROOT = "/var/lib"
HIDDEN = ("/home", "/root", "/run/user")
"""What ``ProtectHome=`` keeps from the service."""
_PLAIN = re.compile(r"(/[A-Za-z0-9._+@-]+)+")
_USER = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,30})?")
_UNIT_MAX_BYTES = 64 * 1024
_MARK = "# Written by `edge-agent install-service`; `edge-agent uninstall-service` takes it away."
_MADE = "X-Made="
"""systemd passes over keys that begin with X-: the folders that were made stand there."""


class Service(Struct, frozen=True, kw_only=True):
    """What a unit is told apart from its hardening.

    Attributes:
        program: absolute path of ``edge-agent``, as the service will see it.
        config: absolute path of its settings.
        folder: where it keeps its state; below /var/lib, so that systemd makes it and hands it to
            the service's user, and nothing else need be writable.
        user: a user that exists; "" lets systemd make one up for as long as the service runs.
    """

    program: str
    config: str = str(DEFAULT_PATH)
    folder: str = DEFAULT_FOLDER
    user: str = ""


def check(service: Service) -> None:
    """Raise InputFault with a way out where the hardened service could not work."""
    for what, path in (
        ("edge-agent", service.program),
        ("its settings", service.config),
        ("[agent] folder", service.folder),
    ):
        if not _PLAIN.fullmatch(path) or ".." in PurePosixPath(path).parts:
            raise InputFault(
                f"{what}: a unit file wants an absolute path of letters, digits, '.', '_', '-', "
                f"'+' and '@', got {path!r}"
            )
        check_seen(what, path)
    if len(PurePosixPath(service.config).parts) < 4:
        raise InputFault(
            f"its settings: the service is handed their whole folder, got {service.config}",
            advice=f"Give them one of their own, such as {DEFAULT_PATH}.",
        )
    if service.user in ("root", "nobody") or not _USER.fullmatch(service.user):
        raise InputFault(f"the service wants a user of its own, got {service.user!r}")
    folder = PurePosixPath(service.folder)
    if not folder.is_relative_to(STATE_ROOT) or str(folder) == STATE_ROOT:
        raise InputFault(
            f"[agent] folder: a service keeps its state below {STATE_ROOT}, got {service.folder}",
            advice=f'Set folder = "{DEFAULT_FOLDER}"; another disk can be mounted there.',
        )


def check_seen(what: str, path: str) -> None:
    """Raise InputFault where ``ProtectHome=`` would hide ``path``."""
    if any(PurePosixPath(path).is_relative_to(hidden) for hidden in HIDDEN):
        raise InputFault(
            f"{what} at {path}: a service sees no home folders",
            advice="Install it elsewhere: python3 -m venv /opt/edge-pack; settings in /etc.",
        )


def unit(service: Service, made: Sequence[str] = ()) -> str:
    """The unit file; ``made`` is what an uninstall removes when it is empty."""
    lines = resources.files("edge_agent").joinpath(NAME).read_text().splitlines()
    config = PurePosixPath(service.config)
    said = {
        "ExecStart=": f"{service.program} run --config {service.config}",
        "EnvironmentFile=": f"-{config.with_name('environment')}",
        "LoadCredential=": f"settings:{config.parent}",
        "StateDirectory=": str(PurePosixPath(service.folder).relative_to(STATE_ROOT)),
    }
    for at, line in enumerate(lines):
        key = line[: line.find("=") + 1]
        if key in said:
            lines[at] = key + said[key]
        elif key == "DynamicUser=" and service.user:
            lines[at] = f"User={service.user}"
        elif line == "[Unit]":
            lines[at] = f"[Unit]\n{_MADE}{' '.join(made)}"
    return "\n".join([_MARK, *lines, ""])


class Installed(Struct, frozen=True, kw_only=True):
    """What was, or would be, written.

    Attributes:
        wrote: files that are new or changed.
        made: folders that were not there before this or an earlier install.
        text: the unit.
    """

    wrote: tuple[Path, ...]
    made: tuple[str, ...]
    text: str


@contextlib.contextmanager
def _rights() -> Iterator[None]:
    """What the file system refuses is the machine's fault."""
    try:
        yield
    except OSError as error:
        raise MachineFault(
            f"{error.filename}: {error.strerror}", advice="Run it as root: sudo edge-agent ..."
        ) from error


@_rights()
def install(service: Service, prefix: Path, *, dry_run: bool = False) -> Installed:
    """Write unit and example settings below ``prefix``; twice is as once.

    Raises InputFault for a unit that is not ours or could not work, MachineFault when the disk or
    the rights say no.
    """
    check(service)
    place = _at(prefix, f"{UNITS}/{NAME}")
    etc = PurePosixPath(service.config).parent
    before = _ours(place)
    missing = {path for root in (UNITS, str(etc)) for path in _missing(prefix, root)}
    made = tuple(sorted(missing | set(_made(before))))
    text = unit(service, made)
    wanted = {place: text.encode(), _at(prefix, f"{etc}/{EXAMPLE}"): example()}
    wrote = tuple(path for path, data in wanted.items() if _differs(path, data))
    if not dry_run:
        for folder in made:
            _at(prefix, folder).mkdir(mode=0o755, exist_ok=True)
        for path in wrote:
            write_atomic(path, wanted[path])
    return Installed(wrote=wrote, made=made, text=text)


@_rights()
def uninstall(prefix: Path, *, config: str = str(DEFAULT_PATH), purge: bool = False) -> list[Path]:
    """Remove what ``install`` wrote; with ``purge`` settings, keys and state too. What was removed.

    Raises InputFault for a unit that is not ours, MachineFault when the rights say no.
    """
    place = _at(prefix, f"{UNITS}/{NAME}")
    text = _ours(place)
    etc = _at(prefix, str(PurePosixPath(config).parent))
    doomed = [etc / EXAMPLE, place.with_name(f"{NAME}.d")] if purge else [etc / EXAMPLE]
    doomed += [wants / NAME for wants in place.parent.glob("*.wants")]
    if purge:
        state = _state(text)
        doomed += [etc] if str(etc) == str(_at(prefix, str(DEFAULT_PATH.parent))) else []
        doomed += [_at(prefix, config), _at(prefix, f"{STATE_ROOT}/private/{state}")]
        doomed += [_at(prefix, f"{STATE_ROOT}/{state}")]
    doomed.append(place)  # last: it knows which folders were made
    gone = [path for path in doomed if _remove(path)]
    wants = (link.parent for link in gone if link.parent.suffix == ".wants")
    for folder in (*wants, *(_at(prefix, path) for path in reversed(_made(text)))):
        with contextlib.suppress(OSError):  # not empty, or gone with the purge
            folder.rmdir()
    return gone


@_rights()
def hand_over(folder: Path) -> None:
    """What root wrote into the state of a service that ran before is the service's user's again.

    systemd looks at the folder's own owner only. Nothing happens for anybody but root.
    """
    owner = folder.stat() if folder.is_dir() else None
    if owner is None or os.geteuid() != 0 or owner.st_uid == 0:
        return
    for _, folders, files, handle in os.fwalk(folder.resolve()):
        for name in (*folders, *files):
            _give(name, handle, owner)


def _give(name: str, folder: int, owner: os.stat_result) -> None:
    """Give away what root wrote at ``name`` in an open folder: not where a link of any kind leads.

    The folder is another user's, who may put anything there at any moment: what is given away is
    what was opened and looked at.
    """
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:  # a link, a socket, or gone
        return
    try:
        found = os.fstat(handle)
        own = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
        if own and found.st_uid == 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)
    finally:
        os.close(handle)


def example() -> bytes:
    """Every setting with its default, as the wheel carries it; in a checkout beside the package."""
    package = resources.files("edge_agent")
    for place in (package.joinpath(EXAMPLE), package.joinpath("..", EXAMPLE)):
        if place.is_file():
            return place.read_bytes()
    raise MachineFault(
        f"{EXAMPLE} is not part of this installation", advice="Install edge-pack anew."
    )


def _ours(place: Path) -> str:
    """The unit that is there, or "". Raises InputFault when somebody else wrote it."""
    if not place.exists():
        return ""
    text = read_bounded(place, _UNIT_MAX_BYTES).decode(errors="replace")
    if not text.startswith(_MARK):
        raise InputFault(
            f"{place} was not written by install-service",
            advice="Move what it says into a drop-in (systemctl edit edge-agent) and remove it.",
        )
    return text


def _made(text: str) -> list[str]:
    """The folders that a unit says were made, outer ones first."""
    found = [line for line in text.splitlines() if line.startswith(_MADE)]
    return sorted(found[0].removeprefix(_MADE).split()) if found else []


def _state(text: str) -> str:
    """The state directory that a unit names, below /var/lib. Raises InputFault: it is elsewhere."""
    for line in text.splitlines():
        if line.startswith("StateDirectory="):
            found = line.partition("=")[2]
            if not _PLAIN.fullmatch(f"/{found}") or {".", ".."} & set(found.split("/")):
                raise InputFault(
                    f"the unit's StateDirectory={found} is not one that install-service wrote",
                    advice="Run install-service again, or uninstall without --purge.",
                )
            return found
    return PurePosixPath(DEFAULT_FOLDER).name


def _missing(prefix: Path, path: str) -> list[str]:
    """``path`` and its parents, as far as they are not there."""
    pure = PurePosixPath(path)
    return [str(each) for each in (pure, *pure.parents) if not _at(prefix, str(each)).is_dir()]


def _differs(path: Path, data: bytes) -> bool:
    return not path.is_file() or path.read_bytes() != data


def _remove(path: Path) -> bool:
    """Whether there was something to remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    else:
        return False
    return True


def _at(prefix: Path, path: str) -> Path:
    return prefix / path.lstrip("/")
