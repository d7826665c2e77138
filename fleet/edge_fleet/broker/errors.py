"""Whose fault a failure of the broker is: a peer's bytes, or our own configuration.

The broker imports nothing else of ours, so its errors stand alone.
"""

from edge_fleet.broker.reasons import ReasonCode


class BrokerError(Exception):
    """The broker cannot do what its owner asked; the message says what to do instead."""


class BrokerConfigError(BrokerError):
    """The configuration is wrong; every fault in it is listed at once."""


class StateFileError(BrokerError):
    """The file with persisted sessions and retained messages cannot be read."""


class ProtocolError(Exception):
    """A peer broke the protocol; `reason` is what its DISCONNECT or CONNACK says.

    The one error that the codec raises, whatever the bytes.
    """

    def __init__(self, reason: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class UnsupportedVersion(ProtocolError):
    """A CONNECT of another MQTT version (MQTT 5.0 §3.1.2.2); `level` is the one it asked for."""

    def __init__(self, level: int) -> None:
        super().__init__(
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            f"protocol level {level}: this broker speaks MQTT 5 (level 5) only",
        )
        self.level = level


def malformed(text: str) -> ProtocolError:
    """The error for bytes that cannot be parsed (MQTT 5.0 §4.13)."""
    return ProtocolError(ReasonCode.MALFORMED_PACKET, text)


def violation(text: str) -> ProtocolError:
    """The error for well-formed bytes that the protocol forbids here (MQTT 5.0 §4.13)."""
    return ProtocolError(ReasonCode.PROTOCOL_ERROR, text)
