"""What one device's page shows beside its report: what it is to run, and its counts over time.

Guards: a window counts at the time that its reader is told everywhere else (``windows.times_ms``):
the device's clock where that can be trusted, else its arrival.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from edge_contract import messages
from edge_contract.errors import InputFault, MachineFault
from edge_fleet import merging
from edge_fleet.api import resources
from edge_fleet.drift.budget import Budget
from edge_fleet.reports import instant, reported_of
from edge_fleet.store.base import Transaction
from edge_fleet.store.rollouts import Wish
from edge_fleet.views import DeviceReport
from edge_fleet.windows import times_ms

POINTS = 96
HOUR_MS = 3_600_000


class DeviceDetail(Struct, frozen=True):
    """A device with all that it said of itself, and what it is wanted to follow.

    Attributes:
        reported: its last report; None where it never made one. received: when that came.
        desired: what the fleet wants of it; None: what its channel says. wanted: since when.
    """

    device: DeviceReport
    reported: messages.Reported | None
    received: str | None
    desired: messages.Desired | None
    wanted: str | None


class CountsView(Struct, frozen=True):
    """Rows that a model answered in a span of time, those it refused, and those it failed on."""

    model: str
    start: str
    rows: int
    refused: int
    failed: int


class CountsOverTime(Struct, frozen=True):
    """Spans of ``span_s`` seconds, oldest first; those without a window are not listed."""

    since: str | None
    until: str | None
    span_s: float
    spans: tuple[CountsView, ...]


def detail(tx: Transaction, name: str, now_ms: int, budget: Budget) -> DeviceDetail | None:
    """One device; None for one never heard of."""
    found = tx.devices_named([name])
    report = resources.device(tx, name, now_ms, budget)
    if report is None or not found:
        return None
    reported, wish = reported_of(found[0]), tx.wish_of(name)
    desired = _desired(wish)
    return DeviceDetail(
        device=report,
        reported=reported,
        received=instant(found[0].reported_ms),
        desired=desired,
        wanted=instant(wish.at_ms) if wish else None,
    )


def _desired(wish: Wish | None) -> messages.Desired | None:
    if wish is None:
        return None
    try:
        return messages.decode(wish.desired, messages.Desired)
    except InputFault:  # kept by a newer edge-fleet
        return None


def counts(tx: Transaction, name: str, now_ms: int, hours: float) -> CountsOverTime:
    """The last ``hours`` of a device, in at most ``POINTS`` spans a model."""
    since_ms = now_ms - int(hours * HOUR_MS)
    span_ms = max(int(hours * HOUR_MS / POINTS), 1)
    sums: dict[tuple[int, str], Counter[str]] = {}
    for one in tx.kept_of(name, since_ms):
        try:
            record = merging.decode(one.record)
        except (InputFault, MachineFault):  # the database is damaged; the rest is still true
            continue
        at = (times_ms(record, one.received_ms)[0] - since_ms) // span_ms
        if 0 <= at <= POINTS:
            of = sums.setdefault((at, record.model), Counter())
            of.update(rows=record.rows, refused=record.refused, failed=record.failed)
    spans = tuple(
        CountsView(model, instant(since_ms + at * span_ms) or "", of["rows"], of["refused"],
                   of["failed"])
        for (at, model), of in sorted(sums.items())
    )  # fmt: skip
    return CountsOverTime(instant(since_ms), instant(now_ms), span_ms / 1000, spans)
