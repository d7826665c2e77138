"""A mosquitto.conf fragment for a broker of this project. Pure.

Source of each setting: mosquitto.conf(5) of 2.0; the limits: docs/decisions/0018.
"""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE_MAX_BYTES = 1024 * 1024
"""A chunk is 120 KiB, a request at most 1 MiB; no client of ours takes larger packets."""
PACKET_MAX_BYTES = MESSAGE_MAX_BYTES + 64 * 1024
QUEUE_MAX_BYTES = 64 * 1024**2
AUTOSAVE_S = 60
"""mosquitto's default of half an hour lost retained messages when it was killed."""


@dataclass(frozen=True)
class Listeners:
    """Where the broker listens.

    Attributes:
        folder: holds ``passwords``, ``acl`` and, for TLS, ``tls/``.
        tls_port, mtls_port: with passwords over TLS; with client certificates. 0: not.
        plain: address without TLS, as ``127.0.0.1``; "": none. plain_port: its port.
    """

    folder: str
    tls_port: int = 0
    mtls_port: int = 0
    plain: str = ""
    plain_port: int = 1883


def conf(listeners: Listeners) -> str:
    """The lines of the fragment, for mosquitto's ``include_dir`` or as a file of its own."""
    folder = listeners.folder
    lines = [
        "# Written by `edge-pack broker-acl`. After a change: kill -HUP mosquitto.",
        "per_listener_settings false",
        "allow_anonymous false",
        f"password_file {folder}/passwords",
        f"acl_file {folder}/acl",
        "",
        "# Retained messages are the store that devices pull from: keep them over restarts. Where,",
        "# says persistence_location, in a folder that mosquitto's user may write: in Debian's",
        "# mosquitto.conf it stands already, and may not stand twice.",
        "persistence true",
        f"autosave_interval {AUTOSAVE_S}",
        "persistent_client_expiration 30d",
        "",
        "# No count (the default of 1,000 drops without a word), but bytes, for each session.",
        "max_queued_messages 0",
        f"max_queued_bytes {QUEUE_MAX_BYTES}",
        f"message_size_limit {MESSAGE_MAX_BYTES}",
        f"max_packet_size {PACKET_MAX_BYTES}",
        "max_keepalive 3600",
        "set_tcp_nodelay true",
    ]
    tls = [
        f"cafile {folder}/tls/ca.pem",
        f"certfile {folder}/tls/server.pem",
        f"keyfile {folder}/tls/server.key",
        "tls_version tlsv1.2",
    ]
    if listeners.tls_port:
        lines += ["", "# User and password, over TLS.", f"listener {listeners.tls_port}", *tls]
    if listeners.mtls_port:
        lines += [
            "", "# Client certificates; the user is the certificate's common name.",
            f"listener {listeners.mtls_port}", *tls,
            "require_certificate true", "use_identity_as_username true",
        ]  # fmt: skip
    if listeners.plain:
        lines += [
            "", "# User and password without TLS: whoever hears the wire has the password.",
            f"listener {listeners.plain_port} {listeners.plain}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
