"""What a device is called by in a question: see ``rollouts.selector``. Pure.

Guards: what the server itself knows (``state``, ``alarms`` ...) cannot be faked by a label of that
name, which is ``label.NAME``; what a device says of itself is text.
"""

from __future__ import annotations

from edge_fleet.rollouts.selector import LABEL, YES, Traits
from edge_fleet.views import DeviceReport

NO = "no"


def traits(one: DeviceReport, now_ms: int) -> Traits:
    """Of one device; quantities in seconds, bytes or as they are counted."""
    own = one.inventory
    said: dict[str, str | tuple[str, ...]] = {
        "hw": one.machine, "agent": one.agent, **_known(
            system=own.system, python=own.python, onnxruntime=own.onnxruntime, cpus=own.cpus,
            ram=own.ram_bytes, channel=one.channel,
        ),
        **one.labels,
        **{f"{LABEL}{name}": value for name, value in one.labels.items()},
    }  # fmt: skip
    versions = tuple(model.version for model in one.models if model.version)
    heard_s = (now_ms - one.seen_ms) / 1000 if one.seen_ms else float("inf")
    alarms = sum(model.open_alarms for model in one.models)
    moving: dict[str, object] = {
        "device": one.device,
        "state": one.state,
        "alive": _flag(one.state == "online"),
        "last_seen": max(heard_s, 0.0),
        "follows": one.follows,
        "unsigned": _flag(any(model.signed is False for model in one.models)),
        "model": tuple(model.model for model in one.models),
        "version": versions,
        "phase": tuple(model.phase for model in one.models if model.phase),
        "alarms": alarms,
        "alarmed": _flag(alarms > 0),
        "rows": one.rows,
        "dropped": one.dropped,
        "boot": one.boot,
        "freshness": one.freshness,
        "clock": {None: None, True: "synchronised", False: "free"}[own.synchronised],
        "clock_offset": own.clock_offset_s,
        "disk_free": own.disk_free_bytes,
        "spool": own.spool_bytes,
        "temperature": own.temperature_c,
        "strained": _flag(bool(own.signs)),
    }
    told = {name: value for name, value in said.items() if name not in moving}
    return told | _known(**moving)


def _flag(holds: bool) -> str:
    return YES if holds else NO


def _known(**values: object) -> dict[str, str | tuple[str, ...]]:
    """As text; what is not known is not there."""
    return {
        name: value if isinstance(value, tuple) else str(value)
        for name, value in values.items()
        if value is not None
    }
