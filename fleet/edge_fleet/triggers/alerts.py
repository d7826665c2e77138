"""A firing as alerts of Prometheus Alertmanager, API version 2. Pure.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, postAlerts

Guards: an alert's labels are its identity there, so they hold names alone and no figure that
changes; ``endsAt`` lies a few tellings ahead, so that alerts of a server that died end by
themselves, and in the past once their alarms are resolved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_contract.trigger import AlarmFound, Evidence

ALERT = "EdgeModelDrift"
LASTS = 4.0
"""Tellings that may be missed before an alert ends by itself; Prometheus itself uses four."""


def alerts(
    evidence: Evidence, open_alarms: Collection[int], labels: Mapping[str, str], *, now_ms: int,
    resend_s: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """One alert an alarm of ``evidence``; those not in ``open_alarms`` have ended."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    later = now + timedelta(seconds=LASTS * resend_s)
    return [
        _alert(evidence, alarm, labels, later if alarm.id in open_alarms else now)
        for alarm in evidence.alarms
    ]


def _alert(
    evidence: Evidence, alarm: AlarmFound, labels: Mapping[str, str], ends: datetime
) -> dict[str, Any]:
    named = {
        "alertname": ALERT,
        "severity": "warning",
        "trigger": evidence.trigger,
        "fleet": evidence.fleet,
        "model": evidence.model,
        "version": evidence.version,
        "level": alarm.level,
        "device": alarm.device,
        "feature": alarm.feature,
        "alarm": str(alarm.id),
    }
    return {
        "labels": {name: value for name, value in {**named, **labels}.items() if value},
        "annotations": {
            "summary": f"{evidence.model} {evidence.version}: {alarm.feature}: {alarm.what}",
            "description": "; ".join(evidence.why),
            "since": alarm.since,
            "bundle": evidence.bundle,
        },
        "startsAt": alarm.opened,
        "endsAt": ends.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
