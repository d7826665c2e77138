"""Every device in a line: what lists are filtered by and counted from.

Guards: one reading of one table; of a report only what is counted is decoded. A report that a newer
agent wrote, or that is damaged, is a device without labels, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from edge_contract.typed import json_decoder
from edge_fleet.store.base import Transaction


class _Hardware(Struct, frozen=True, gc=False):
    machine: str = ""


class _Model(Struct, frozen=True, gc=False):
    active: str = ""


class _Reported(Struct, frozen=True, gc=False):
    labels: dict[str, str] = {}
    models: dict[str, _Model] = {}
    hardware: _Hardware = _Hardware()


_DECODER = json_decoder(_Reported)
_NOTHING = _Reported()


class Line(Struct, frozen=True, gc=False):
    """A device.

    ``running``: the version of each model that answers there, by its report; where it never made
    one, by what it counted.
    """

    device: str
    online: bool
    seen_ms: int
    lag_ms: int
    windows: int
    dropped: int
    agent: str
    machine: str
    labels: dict[str, str]
    running: Mapping[str, str]


def lines(tx: Transaction, after: str = "") -> list[Line]:
    """All of them that come after this one, by name."""
    counted: dict[str, dict[str, str]] = {}
    for device, model, version in tx.unreported_counted():
        counted.setdefault(device, {})[model] = version
    found = []
    for row in tx.device_rows(after):
        said = _said(row.reported)
        running = counted.get(row.device) or {
            name: model.active for name, model in said.models.items() if model.active
        }
        found.append(
            Line(
                row.device, row.online, row.seen_ms, row.lag_ms, row.windows, row.dropped,
                row.agent, said.hardware.machine, said.labels, running,
            )
        )  # fmt: skip
    return found


def _said(reported: bytes) -> _Reported:
    if not reported:
        return _NOTHING
    try:
        return _DECODER.decode(reported)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOTHING
