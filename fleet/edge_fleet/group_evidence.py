"""Evidence on cohorts and on the whole fleet, and the alarms that it raises.

Guards: a group counts the windows that its devices just counted, in the same transaction, so each
once; what a group remembers is read from the store in that transaction, so a restart changes
nothing. An event is the group's only where no single device holds most of the evidence: that
device's own alarm says it better. An event lists its devices' alarms of the same kind under it,
those to come as long as it is open, and those raised since it began; they are kept, and speak for
themselves again when it is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_contract.components import Floats
from edge_fleet import kept
from edge_fleet.cohorts import Membership
from edge_fleet.drift import explain as explanations
from edge_fleet.drift import groups as detectors
from edge_fleet.drift.budget import Budget, Part
from edge_fleet.drift.groups import EVERY_DEVICE, GroupState, GroupTable, Pace
from edge_fleet.library import Known
from edge_fleet.store.base import Alarm, Transaction, Window
from edge_fleet.store.groups import Group

SOLO_SHARE = 2 / 3
"""An event of which one device holds more of the evidence is that device's."""
WINDOWS_READ_MAX = 20_000
"""So many windows since a change say enough of it: a few seconds, once an alarm."""
TABLES_MAX = 64

Place = tuple[str, str, int]
"""(group, bundle, monitor)."""


@dataclass(frozen=True)
class _Members:
    """Counts of one monitor since a change, ``[devices, cells]``, and each one's evidence."""

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    evidence: Floats

    @property
    def solo(self) -> bool:
        """One device holds most of it."""
        return not self.evidence.max(initial=0.0) <= SOLO_SHARE * self.evidence.sum()


@dataclass(frozen=True)
class _Crossing:
    """A monitor of a group whose evidence reached the threshold; logarithms."""

    group: Group
    state: GroupState
    monitor: int
    level: float
    threshold: float

    @property
    def place(self) -> Place:
        """Where."""
        return self.group.name, self.group.bundle, self.monitor


class GroupEvidence:
    """Counts windows for groups; see the module's docstring."""

    def __init__(self, budget: Budget, cohort_by: Sequence[str] = ()) -> None:
        self._pace = Pace.of(budget.window_s)
        self._slot_ms = max(round(budget.window_s * 1000), 1)
        self._membership = Membership(cohort_by)
        self._tables: dict[str, GroupTable] = {}
        self._solo: dict[Place, int] = {}

    def forget(self) -> None:
        """After a transaction that failed."""
        self._membership.forget()
        self._solo.clear()

    def count(
        self,
        tx: Transaction,
        known: Known,
        windows: Sequence[Window],
        log_e: Floats,
        *,
        thresholds: Mapping[Part, float],
        now_ms: int,
    ) -> list[Alarm]:
        """Count ``windows`` of one bundle, with their log evidence; returns new alarms."""
        members = self._membership.read(tx, now_ms)
        whose: dict[str, list[int]] = {EVERY_DEVICE: list(range(len(windows)))}
        for at, window in enumerate(windows):
            for cohort in members.get(window.device, ()):
                whose.setdefault(cohort, []).append(at)
        stored = tx.groups(known.bundle, whose)
        table = self._table(known)
        raised: list[Alarm] = []
        for name, ours in whose.items():
            group = stored.get(name) or _opened(known, name)
            state, latched = _loaded(tx, table, group)
            for slot, some in self._by_slot(windows, ours):
                rows = np.array([windows[at].rows for at in some])
                state = table.advance(state, slot, log_e[some], rows)
            threshold = thresholds[group.scope]
            levels = known.table.levels(state.log_m)
            for monitor in np.flatnonzero(levels >= threshold).tolist():
                if monitor not in latched:
                    crossing = _Crossing(group, state, monitor, float(levels[monitor]), threshold)
                    alarm = self._alarm(tx, known, crossing, now_ms)
                    if alarm:
                        latched[monitor] = alarm.id
                        raised.append(alarm)
            tx.put_groups([_grown(group, [windows[at] for at in ours], state, latched, now_ms)])
        return raised

    def parent(
        self,
        tx: Transaction,
        alarm: Alarm,
        kind: str,
        now_ms: int,
        events: Sequence[Alarm] | None = None,
    ) -> int | None:
        """The open event that an alarm of this kind belongs under: the narrowest one.

        ``events``: those open of its bundle and monitor, where they were read before.
        """
        if alarm.scope == "fleet":
            return None
        groups = {EVERY_DEVICE}
        if alarm.scope == "device":
            groups |= set(self._membership.read(tx, now_ms).get(alarm.device, ()))
        if events is None:
            events = tx.open_events(alarm.bundle, alarm.monitor)
        found = [other for other in events if other.device in groups and _alike(other, alarm, kind)]
        found.sort(key=lambda other: (other.scope == "fleet", other.id))
        return found[0].id if found else None

    def _table(self, known: Known) -> GroupTable:
        found = self._tables.get(known.bundle)
        if found is None or found.table is not known.table:
            if len(self._tables) >= TABLES_MAX:
                self._tables.clear()
            found = self._tables[known.bundle] = GroupTable(known.table, self._pace)
        return found

    def _by_slot(
        self, windows: Sequence[Window], ours: Sequence[int]
    ) -> list[tuple[int, list[int]]]:
        """Slots by the time of arrival, which no device can set; the earliest first."""
        slots: dict[int, list[int]] = {}
        for at in ours:
            slots.setdefault(windows[at].received_ms // self._slot_ms, []).append(at)
        return sorted(slots.items())

    def _alarm(
        self, tx: Transaction, known: Known, crossing: _Crossing, now_ms: int
    ) -> Alarm | None:
        """Keep the group's alarm and put its devices' alarms under it; None: no event of a group.

        Whether one device is the cause is looked up once a slot.
        """
        group, state, monitor = crossing.group, crossing.state, crossing.monitor
        if self._solo.get(crossing.place) == state.slot:
            return None
        table = known.table.monitors[monitor]
        start = int(known.table.starts[monitor])
        entry = explanations.telling_entry(table, state.log_m[start : start + len(table.entries)])
        since_ms = int(state.began[start + entry]) * self._slot_ms
        members = self._members(tx, known, crossing, (entry, since_ms, now_ms))
        if members.solo:
            self._solo[crossing.place] = state.slot
            return None
        explanation = explanations.of_group(
            explanations.explain(
                table, entry, members.counts.sum(axis=0), known.labels, known.profile.projections
            ),
            members.names,
            members.evidence,
        )
        alarm = Alarm(
            device=group.name,
            model=group.model,
            version=group.version,
            bundle=group.bundle,
            monitor=monitor,
            source=table.monitor.source,
            feature=table.monitor.name,
            opened_ms=now_ms,
            since_ms=since_ms,
            log_evidence=crossing.level,
            log_threshold=crossing.threshold,
            explanation=explanations.encode(explanation),
            scope=group.scope,
        )
        alarm = replace(alarm, parent=self.parent(tx, alarm, explanation.kind, now_ms))
        alarm = replace(alarm, id=tx.add_alarm(alarm))
        _adopt(tx, alarm, explanation.kind, set(members.names))
        return alarm

    def _members(
        self, tx: Transaction, known: Known, crossing: _Crossing, what: tuple[int, int, int]
    ) -> _Members:
        """What each device of the group counted; ``what``: entry, since when, and the time now."""
        entry, since_ms, now_ms = what
        group = crossing.group
        cohorts = self._membership.read(tx, now_ms)
        table = known.table.monitors[crossing.monitor]
        at = known.profile.offsets()[crossing.monitor]
        sums: dict[str, NDArray[np.int64]] = {}
        read = 0
        for batch in kept.batches(tx, known, since_ms):
            for one, counts in zip(batch.kept, batch.counts, strict=True):
                if group.scope == "fleet" or group.name in cohorts.get(one.device, ()):
                    own = counts[at : at + table.monitor.cells]
                    sums[one.device] = sums.get(one.device, 0) + own
            read += len(batch.kept)
            if read >= WINDOWS_READ_MAX:
                break
        names = tuple(sorted(sums))
        rows = np.stack([sums[name] for name in names]) if names else np.zeros((0, 0), np.int64)
        return _Members(names, rows, rows @ table.log_e[:, entry] if names else np.zeros(0))


def _adopt(tx: Transaction, event: Alarm, kind: str, members: set[str]) -> None:
    """List under ``event`` what its devices and cohorts raised since it began."""
    opened = tx.alarms(open_only=True)
    ids = {other.id for other in opened}
    under = [
        other.id
        for other in opened
        if other.opened_ms >= event.since_ms
        and other.parent not in ids
        and _alike(other, event, kind)
        and (
            (other.scope == "device" and other.device in members)
            or (other.scope == "cohort" and event.scope == "fleet")
        )
    ]
    if under:
        tx.put_under(under, event.id)


def _alike(one: Alarm, other: Alarm, kind: str) -> bool:
    """Two alarms on one monitor of one bundle that say the same kind of thing."""
    same = (one.bundle, one.monitor) == (other.bundle, other.monitor)
    return same and explanations.family(explanations.decode(one.explanation).kind) == (
        explanations.family(kind)
    )


def _opened(known: Known, name: str) -> Group:
    return Group(
        name=name,
        bundle=known.bundle,
        scope="fleet" if name == EVERY_DEVICE else "cohort",
        model=known.manifest.name,
        version=known.manifest.version,
        state=b"",
        monitors=len(known.table.monitors),
    )


def _loaded(tx: Transaction, table: GroupTable, group: Group) -> tuple[GroupState, dict[int, int]]:
    """What the group remembers; monitors whose alarm was resolved start anew."""
    if not group.state:
        return table.start(), {}
    state, latched = detectors.load(group.state, table)
    resolved = tx.resolved(latched.values()) if latched else set()
    for monitor, alarm in list(latched.items()):
        if alarm in resolved:
            state = table.anew(state, monitor)
            del latched[monitor]
    return state, latched


def _grown(
    group: Group, windows: Sequence[Window], state: GroupState, latched: dict[int, int], now_ms: int
) -> Group:
    return replace(
        group,
        state=detectors.save(state, latched),
        windows=group.windows + len(windows),
        rows=group.rows + sum(window.rows for window in windows),
        updated_ms=now_ms,
    )
