"""The fleet's and a device's page in SQL; see ``store.overview`` for the promises."""

from __future__ import annotations

from sqlalchemy import Connection, exists, func, select

from edge_fleet.store.overview import DeviceRow
from edge_fleet.store.rollout_rows import wishes
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.rollups import Kept
from edge_fleet.store.tables import alarms, detectors, devices, metadata, sums, windows

_COUNTED = 1
AT_ONCE = 500
"""Rows that live at once: ten thousand are work for the garbage collector."""


class OverviewRows:
    """This part of ``transaction.SqlTransaction``."""

    _connection: Connection

    def device_rows(self, after: str = "") -> list[DeviceRow]:
        columns = [devices.c[name] for name in DeviceRow.__struct_fields__]
        statement = select(*columns).where(devices.c.device > after).order_by(devices.c.device)
        found = self._connection.execute(statement)
        return [DeviceRow(*row) for some in found.partitions(AT_ONCE) for row in some]

    def unreported_counted(self) -> list[tuple[str, str, str]]:
        order = (detectors.c.device, detectors.c.model, detectors.c.boot, detectors.c.seq)
        found = self._connection.execute(
            select(detectors.c.device, detectors.c.model, detectors.c.version)
            .join(devices, devices.c.device == detectors.c.device)
            .where(func.length(devices.c.reported) == 0)
            .order_by(*order)
        )
        return [(row[0], row[1], row[2]) for row in found]

    def open_by_device(self) -> dict[str, int]:
        found = self._connection.execute(
            select(alarms.c.device, func.count())
            .where(alarms.c.resolved_ms.is_(None))
            .group_by(alarms.c.device)
        )
        return {device: int(count) for device, count in found}

    def unacknowledged(self) -> int:
        notes, above = metadata.tables["alarm_notes"], alarms.alias()
        seen = exists().where(notes.c.alarm == alarms.c.id, notes.c.kind == "acknowledged")
        under = exists().where(above.c.id == alarms.c.parent, above.c.resolved_ms.is_(None))
        count = select(func.count()).select_from(alarms)
        return int(
            self._connection.execute(
                count.where(alarms.c.resolved_ms.is_(None), ~seen, ~under)
            ).scalar_one()
        )

    def kept_of(self, device: str, since_ms: int) -> list[Kept]:
        single = self._connection.execute(
            select(windows.c.received_ms, windows.c.record).where(
                windows.c.device == device,
                windows.c.received_ms >= since_ms,
                windows.c.counted == _COUNTED,
            )
        )
        merged = self._connection.execute(
            select(sums.c.received_ms, sums.c.windows, sums.c.record).where(
                sums.c.device == device, sums.c.received_ms >= since_ms
            )
        )
        return [
            *(Kept(device, row[0], 1, bytes(row[1])) for row in single),
            *(Kept(device, row[0], row[1], bytes(row[2])) for row in merged),
        ]

    def wish_of(self, device: str) -> Wish | None:
        row = self._connection.execute(
            select(wishes).where(wishes.c.device == device)
        ).one_or_none()
        if row is None:
            return None
        return Wish(row.device, row.revision, row.at_ms, bytes(row.desired))
