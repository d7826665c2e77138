"""Where a broker is: ``mqtt://[user[:password]@]host[:port]`` or ``mqtts://...``."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from edge_contract.errors import InputFault

PORT = 1883
PORT_TLS = 8883


@dataclass(frozen=True)
class BrokerUrl:
    """A broker's address. The password never appears in ``str`` or ``repr``."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{host}:{self.port}"


def parse(text: str) -> BrokerUrl:
    """A broker from its URL. Raises InputFault that says which part is wrong."""
    advice = "Write mqtt://host[:port], or mqtts://user:password@host[:port] for TLS."
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InputFault(f"broker URL is not valid: {error}", advice=advice) from error
    if parts.scheme not in ("mqtt", "mqtts"):
        raise InputFault(f"broker URL has scheme {parts.scheme!r}", advice=advice)
    if not parts.hostname:
        raise InputFault("broker URL has no host", advice=advice)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise InputFault("broker URL has something behind the port", advice=advice)
    tls = parts.scheme == "mqtts"
    return BrokerUrl(
        host=parts.hostname,
        port=port or (PORT_TLS if tls else PORT),
        tls=tls,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )
