"""Which devices belong together: by what their reports say of them.

Guards: a device is in at most one cohort a label, and in none while it says nothing; who is in
which is read anew every minute, so a device that moves counts where it is now, and what it counted
before stays where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_fleet.store.base import Device, Transaction

NAME_MAX_CHARS = 64
REFRESH_MS = 60_000


def cohort_name(key: str, value: str) -> str:
    """``site=north``; one that is too long keeps its beginning and a digest."""
    name = f"{key}={value}"
    if len(name) <= NAME_MAX_CHARS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: NAME_MAX_CHARS - 9]}~{digest}"


def cohorts_of(labels: Mapping[str, str], keys: Sequence[str]) -> tuple[str, ...]:
    """The cohorts of a device with ``labels``, one for each of ``keys`` that it has."""
    return tuple(cohort_name(key, labels[key]) for key in keys if labels.get(key))


def labels_of(device: Device) -> dict[str, str]:
    """What its report says; none where there is no report that this program understands."""
    if not device.reported:
        return {}
    try:
        return dict(messages.decode(device.reported, messages.Reported).labels)
    except InputFault:  # kept by a newer edge-fleet
        return {}


class Membership:
    """Each device's cohorts, from the store, at most ``REFRESH_MS`` old."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = tuple(dict.fromkeys(keys))
        self._cohorts: dict[str, tuple[str, ...]] = {}
        self._read_ms: int | None = None

    def forget(self) -> None:
        """Read anew at the next question."""
        self._read_ms = None

    def read(self, tx: Transaction, now_ms: int) -> Mapping[str, tuple[str, ...]]:
        """Cohorts by device; a device without any is absent."""
        if not self._keys:
            return {}
        if self._read_ms is None or not 0 <= now_ms - self._read_ms < REFRESH_MS:
            found = {d.device: cohorts_of(labels_of(d), self._keys) for d in tx.devices()}
            self._cohorts = {device: cohorts for device, cohorts in found.items() if cohorts}
            self._read_ms = now_ms
        return self._cohorts
