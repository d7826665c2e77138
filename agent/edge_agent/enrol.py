"""A device's first minute: its settings file, and the root of its trust."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_agent.config import DEFAULT_PATH, parse
from edge_agent.settings import DEFAULT_FOLDER
from edge_contract import broker_url
from edge_contract.errors import InputFault
from edge_contract.names import check_name, check_sha256
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_contract.topics import DEFAULT_PREFIX

ROOT_MAX_BYTES = 512 * 1024
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")

TEMPLATE = """\
# Written by `edge-agent enroll`. Every setting: `edge-agent settings`

[agent]
device = "{device}"
fleet = "{fleet}"
channel = "{channel}"
folder = "{folder}"

[broker]
url = "{url}"
"""


def write_config(
    path: Path,
    *,
    device: str,
    fleet: str,
    broker: str,
    channel: str = "stable",
    folder: str = "",
    prefix: str = DEFAULT_PREFIX,
    **tls: str,
) -> list[Path]:
    """Write a settings file with what every device needs; return the files written.

    A password in ``broker`` goes into a file of its own beside it, for the owner's eyes only.
    ``tls``: paths for ``ca``, ``cert``, ``key`` and ``password_file`` of [broker], where not "".
    Raises InputFault when a value is not valid or the file exists, MachineFault when it cannot
    be written.
    """
    if path.exists():
        raise InputFault(f"{path} exists", advice="Change it by hand, or name another --config.")
    check_name(device, "device")
    check_name(fleet, "fleet")
    check_name(channel, "channel")
    url = broker_url.parse(broker)
    text = TEMPLATE.format(
        device=device,
        fleet=fleet,
        channel=channel,
        folder=_toml(folder or default_folder(path, device)),
        url=_toml(_without_password(broker)),
    )
    text += "".join(f'{name} = "{_toml(value)}"\n' for name, value in tls.items() if value)
    if prefix != DEFAULT_PREFIX:
        text = text.replace("\n\n[broker]", f'\nprefix = "{_toml(prefix)}"\n\n[broker]', 1)
    written = []
    if url.password:
        secret = path.with_name(f"{path.stem}.password")
        write_atomic(secret, url.password.encode() + b"\n", mode=0o600)
        text += f'password_file = "{_toml(secret.name)}"\n'
        written.append(secret)
    config, faults = parse(text.encode(), path.absolute().parent)
    if config is None:
        for each in written:
            each.unlink(missing_ok=True)
        raise InputFault("; ".join(faults))
    write_atomic(path, text.encode())
    return [path, *written]


def default_folder(path: Path, device: str) -> str:
    """Beside a settings file of one's own; the system's place for the system's one."""
    return DEFAULT_FOLDER if path == DEFAULT_PATH else f"edge-agent-{device}"


def default_device(hostname: str) -> str:
    """A device name from the host's: what cannot stand in a topic becomes a dash."""
    return _SAFE.sub("-", hostname).strip("-._")[:64] or "device"


def read_root(text: str) -> tuple[bytes | None, str]:
    """``--root`` as root metadata or as its fingerprint: a file, ``sha256:HEX`` or ``HEX``.

    Raises InputFault when it is neither.
    """
    path = Path(text)
    if path.is_file():
        return read_bounded(path, ROOT_MAX_BYTES), ""
    fingerprint = text.removeprefix("sha256:").lower()
    try:
        return None, f"sha256:{check_sha256(fingerprint, 'fingerprint')}"
    except InputFault as error:
        raise InputFault(
            f"--root {text!r} is neither a file nor a fingerprint",
            advice="Give the root.json that `edge-pack keys init` wrote, or sha256:FINGERPRINT.",
        ) from error


def hostname() -> str:
    """This machine's name."""
    return os.uname().nodename


def _without_password(text: str) -> str:
    """The URL as given, less the password; cut where ``broker_url`` cuts it (RFC 3986, 3.2.1)."""
    scheme, sign, rest = text.strip().partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{sign}{user.partition(':')[0]}{at}{place}"


def _toml(text: str) -> str:
    """For between double quotes (TOML 1.0, basic strings)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if any(ord(c) < 32 or ord(c) == 127 for c in escaped):
        raise InputFault(f"{text!r} holds a control character")
    return escaped
