"""The MQTT topics that all sides agree on: ``<prefix>/<fleet>/...``.

Guards: no topic of ours has more than seven slashes (AWS IoT Core's limit), and no name that
came from outside reaches a topic unchecked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from edge_contract.errors import InputFault
from edge_contract.names import check_name, check_sha256

DEFAULT_PREFIX = "edge/1"
SLASHES_MAX = 7
SENTINEL_FILE = "sentinel.json"
"""The metadata file that is always retained, see ``ports.retained``; no TUF role is called so."""
Kind = Literal["status", "desired", "reported", "ev", "in", "out", "fb", "cmd", "rsp", "telemetry"]
_DEVICE_KINDS = ("status", "desired", "reported", "ev", "cmd", "rsp")


@dataclass(frozen=True)
class Address:
    """What a topic of ours is about."""

    kind: Kind
    device: str
    model: str = ""


@dataclass(frozen=True)
class Topics:
    """Builds and reads the topics of one fleet."""

    fleet: str
    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        check_name(self.fleet, "fleet")
        levels = self.prefix.split("/")
        if not 1 <= len(levels) <= 2:
            raise InputFault(f"topic prefix {self.prefix!r} must have one or two levels")
        for level in levels:
            check_name(level, "topic prefix")

    @property
    def root(self) -> str:
        """What every topic of this fleet begins with."""
        return f"{self.prefix}/{self.fleet}"

    def metadata(self, filename: str) -> str:
        """A TUF metadata file, such as ``timestamp.json`` or ``3.snapshot.json``."""
        return f"{self.root}/tuf/m/{filename}"

    def target(self, path: str) -> str:
        """A TUF target by its repository path, digest prefix included."""
        topic = f"{self.root}/tuf/t/{path}"
        if topic.count("/") > SLASHES_MAX:
            raise InputFault(f"topic {topic!r} has more than {SLASHES_MAX} slashes")
        return topic

    def chunk(self, sha256: str) -> str:
        """A content-addressed chunk."""
        return f"{self.root}/c/{check_sha256(sha256, 'chunk')}"

    def status(self, device: str) -> str:
        """Retained: birth and last will."""
        return self._device(device, "status")

    def desired(self, device: str) -> str:
        """Retained: which signed version the fleet wants on this device."""
        return self._device(device, "desired")

    def reported(self, device: str) -> str:
        """Retained: what the device runs and how it is."""
        return self._device(device, "reported")

    def events(self, device: str) -> str:
        """Updates, faults, drift and data-quality events."""
        return self._device(device, "ev")

    def requests(self, device: str, model: str) -> str:
        """Inference requests."""
        return f"{self._device(device, 'in')}/{check_name(model, 'model')}"

    def request_filter(self, device: str) -> str:
        """Every inference request to a device."""
        return f"{self._device(device, 'in')}/+"

    def answers(self, device: str, model: str) -> str:
        """Inference answers, unless the request names a response topic."""
        return f"{self._device(device, 'out')}/{check_name(model, 'model')}"

    def labels(self, device: str, model: str) -> str:
        """Labels for answers that a device gave."""
        return f"{self._device(device, 'fb')}/{check_name(model, 'model')}"

    def labels_filter(self, device: str) -> str:
        """Every label for a device's answers."""
        return f"{self._device(device, 'fb')}/+"

    def telemetry(self, device: str) -> str:
        """Telemetry windows, sharded by two hex digits of the device's hash."""
        return f"{self.root}/t/{shard(device)}/{check_name(device, 'device')}"

    def enrol_request(self, token: str) -> str:
        """The question of a device that enrols with a token; ``token`` is the token's id."""
        return f"{self.root}/enroll/{token}/req"

    def enrol_answer(self, token: str) -> str:
        """What it is answered."""
        return f"{self.root}/enroll/{token}/ans"

    def enrol_filter(self) -> str:
        """Every question of a device that enrols."""
        return self.enrol_request("+")

    def trigger(self, name: str) -> str:
        """What a trigger of the fleet says to whoever retrains."""
        return f"{self.root}/trigger/{check_name(name, 'trigger')}"

    def collector_filters(self) -> tuple[str, ...]:
        """What a collector of the whole fleet subscribes to."""
        device = f"{self.root}/d/+"
        return (f"{self.root}/t/+/+", f"{device}/status", f"{device}/reported", f"{device}/ev")

    def parse(self, topic: str) -> Address:
        """What a received topic is about. Raises InputFault when it is none of a device's."""
        rest = topic.removeprefix(self.root + "/")
        match rest.split("/") if rest != topic else []:
            case ["t", part, device] if part == shard(device):
                return Address("telemetry", check_name(device, "device"))
            case ["d", device, kind] if kind in _DEVICE_KINDS:
                return Address(kind, check_name(device, "device"))  # type: ignore[arg-type]
            case ["d", device, ("in" | "out" | "fb") as way, model]:
                return Address(way, check_name(device, "device"), check_name(model, "model"))
        raise InputFault(f"topic {topic[:120]!r} is none of a device's")

    def _device(self, device: str, kind: str) -> str:
        return f"{self.root}/d/{check_name(device, 'device')}/{kind}"


def shard(device: str) -> str:
    """Two hex digits of the device id's SHA-256: 256 shards of telemetry."""
    return hashlib.sha256(device.encode()).hexdigest()[:2]
