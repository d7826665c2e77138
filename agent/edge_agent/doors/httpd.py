"""The HTTP door as an agent's settings want it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import units
from edge_agent.config import Config
from edge_agent.doors.mqtt import DoorCounts
from edge_agent.feedback import Feedback
from edge_agent.live import Live
from edge_contract.errors import InputFault, MachineFault
from edge_contract.messages import Strain
from edge_contract.ports.disk import read_bounded

if TYPE_CHECKING:
    from edge_agent.doors.http import HttpDoor

TOKEN_MAX_BYTES = 4096


def open_door(
    config: Config,
    models: Mapping[str, Live],
    version: str,
    feedback: Feedback | None = None,
    figures: Callable[[], tuple[Strain, DoorCounts]] | None = None,
) -> HttpDoor | None:
    """A door that answers, or None where the settings have no ``[http]``.

    ``figures``: of the machine and of the MQTT door, for ``/metrics``.

    Raises InputFault for a token that cannot be one, MachineFault when it cannot listen or the
    extra is not installed.
    """
    http = config.http
    if http is None:
        return None
    try:
        from edge_agent.doors.http import HttpDoor  # noqa: PLC0415 - an extra
        from edge_agent.doors.http.door import HttpConfig  # noqa: PLC0415
        from edge_agent.doors.http.exchange import Limits  # noqa: PLC0415
        from edge_agent.doors.http.families import families_of  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MachineFault(
            f"[http] needs the package {error.name}",
            advice="Install it: pip install 'edge-pack[http]'; or take [http] out of agent.toml.",
        ) from error
    host, port = http.address
    settings = HttpConfig(
        host=host,
        port=port,
        socket=Path(http.socket) if http.socket else None,
        token=_token(http.token_file),
        cert_file=http.cert,
        key_file=http.key,
        threads=http.threads,
        limits=Limits(body_max_bytes=units.read_bytes(http.body_max)),
        rules=config.overload.rules,
    )
    labels = feedback.give if feedback is not None else None
    families = (lambda: families_of(*figures())) if figures is not None else list
    return HttpDoor(settings, models, version=version, labels=labels, families=families)


def _token(path: str) -> str:
    if not path:
        return ""
    try:
        token = read_bounded(Path(path), TOKEN_MAX_BYTES).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise InputFault(f"[http] token_file {path} is not ASCII text") from error
    if not token or any(sign.isspace() for sign in token):
        raise InputFault(f"[http] token_file {path} holds no token: one word is expected")
    return token
