"""``edge-agent enroll``: by the publisher's root, or by a one-time token of the fleet.

Guards: a settings file without trust does not stay behind, it would be in the way of the next try.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import typer

from edge_agent import config as configs
from edge_agent import enrol, identity, redeem
from edge_agent.config import Config
from edge_agent.redeem import Keys
from edge_contract import broker_url
from edge_contract.access import enrolment
from edge_contract.access.enrolment import TOKEN_PREFIX
from edge_contract.errors import InputFault, PeerFault

LET_IN_S = 30.0
"""The broker reads its accounts again a moment after the fleet changed them."""
TRY_AGAIN_S = 1.0


def by_root(
    root: str,
    config: Path,
    *,
    device: str,
    fleet: str,
    broker: str,
    channel: str,
    folder: str,
    tls: dict[str, str],
) -> None:
    """Trust ``root``; write the settings when there are none."""
    metadata, fingerprint = enrol.read_root(root)
    written: list[Path] = []
    if not config.exists():
        if not broker or not fleet:
            raise InputFault(
                f"{config} does not exist, and --broker or --fleet is missing to write it"
            )
        redeem.warn_without_tls(broker_url.parse(broker))
        written = enrol.write_config(
            config,
            device=device or enrol.default_device(enrol.hostname()),
            fleet=fleet,
            broker=broker,
            channel=channel,
            folder=folder,
            **tls,
        )
    elif broker or fleet or device or folder or any(tls.values()):
        raise InputFault(
            f"{config} exists and says broker, fleet, device and folder",
            advice="Leave those options out, change the file by hand, or name another --config.",
        )
    _trust(config, metadata, fingerprint, written)


def by_token(
    text: str, config: Path, *, device: str, folder: str, certificate: bool, timeout_s: float
) -> None:
    """Redeem the token and write the settings; a second try after a failure goes on."""
    if config.exists():
        raise InputFault(
            f"{config} exists: this device is enrolled already",
            advice="Name another --config, or remove the file to enrol anew.",
        )
    if text.startswith(TOKEN_PREFIX):
        enrolment.read(text)  # before it is put into a pipe: whole, and of a bounded length
        hide(text)
    token = redeem.read_token(text, _ask_person)
    redeem.warn_without_tls(broker_url.parse(token.url))
    admitted = redeem.redeem(
        token,
        config,
        device=device or token.device or enrol.default_device(enrol.hostname()),
        certificate=certificate,
        machine=identity.fingerprint(),
        timeout_s=timeout_s,
    )
    written = enrol.write_config(
        config,
        device=admitted.device,
        fleet=admitted.fleet,
        broker=admitted.broker,
        channel=admitted.channel,
        folder=folder,
        prefix=admitted.prefix,
        ca=admitted.ca,
        cert=admitted.cert,
        key=admitted.key,
        password_file=admitted.password_file,
    )
    _trust(config, None, admitted.root, written, let_in_s=LET_IN_S)
    Keys(config).pending.unlink(missing_ok=True)


def _trust(
    config: Path,
    metadata: bytes | None,
    fingerprint: str,
    written: list[Path],
    *,
    let_in_s: float = 0.0,
) -> None:
    from edge_agent.pull import enroll as trust  # noqa: PLC0415 - loads the TUF client

    try:
        settings = configs.load(config, os.environ)
        digest = _patiently(lambda: trust(settings, metadata, fingerprint), let_in_s)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    for path in written:
        typer.echo(f"wrote {path}")
    _say(settings, digest)


def _patiently(attempt: Callable[[], str], patience_s: float) -> str:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return attempt()
        except PeerFault:
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(TRY_AGAIN_S)


def _say(settings: Config, digest: str) -> None:
    identity_ = settings.agent
    typer.echo(f"{identity_.device} of fleet {identity_.fleet} trusts the root {digest}")


def hide(token: str) -> None:
    """Begin this command anew without the token in its arguments, where others can read it.

    `ps` shows the arguments of every user's processes; a pipe is this process's alone.
    """
    if not any(token in argument for argument in sys.argv):
        return
    read, write = os.pipe()
    os.write(write, token.encode())  # at most 16 KiB: fits a pipe
    os.close(write)
    os.dup2(read, 0)
    rest = [argument.replace(token, "-") for argument in sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, "-m", "edge_agent", *rest])  # noqa: S606


def _ask_person() -> str:
    """The token from a pipe, or pasted at a terminal, where it is not shown."""
    if sys.stdin.isatty():
        return getpass.getpass("token: ")
    return sys.stdin.read(64 * 1024)
