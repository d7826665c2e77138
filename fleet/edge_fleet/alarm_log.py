"""Alarms in the log.

Guards: an alarm is logged once it is kept, not before: a transaction that fails is tried again, and
raises the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edge_fleet import error_watch
from edge_fleet.drift import explain as explanations
from edge_fleet.store.base import Alarm

log = logging.getLogger(__name__)


def log_raised(alarms: Iterable[Alarm]) -> None:
    """Log what a transaction that is over raised; devices' alarms under an event, by that alone."""
    for alarm in alarms:
        text = explanations.decode(alarm.explanation).text
        if alarm.source == error_watch.SOURCE:
            log.warning("errors: %s %s: %s", alarm.model, alarm.version, text)
        elif alarm.parent is None or alarm.scope != "device":
            log.warning("drift: %s %s: %s", alarm.device, alarm.feature, text)
