"""What this device left at brokers for its bindings, so that a later run can take it away.

Guards: written before it is left there, so that a cut forgets none of it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from edge_contract import wire
from edge_contract.errors import EdgeError, InputFault
from edge_contract.ports.disk import read_bounded, write_atomic

MEMO_MAX_BYTES = 1024 * 1024
Topics = Annotated[tuple[str, ...], Meta(max_length=10_000)]


class Left(Struct, frozen=True, kw_only=True):
    """At one broker: filters of a lasting session, and Home Assistant's configurations."""

    filters: Topics = ()
    sensors: Topics = ()


class _Memo(Struct, frozen=True, kw_only=True):
    schema: int = 1
    brokers: dict[str, Left] = {}


class Memo:
    """The file. What it cannot write is not remembered; nothing else stands still for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memo = _Memo()
        with contextlib.suppress(InputFault):
            data = read_bounded(path, MEMO_MAX_BYTES)
            self._memo = wire.decode_json(data, _Memo, size_max=MEMO_MAX_BYTES)

    @property
    def brokers(self) -> tuple[str, ...]:
        """Names of the brokers where something was left."""
        return tuple(self._memo.brokers)

    def left(self, broker: str) -> Left:
        """What was left at the broker of that name."""
        return self._memo.brokers.get(broker, Left())

    def keep(
        self, broker: str, *, filters: Topics | None = None, sensors: Topics | None = None
    ) -> None:
        """Remember what is there now."""
        before = self.left(broker)
        now = replace(
            before,
            filters=before.filters if filters is None else filters,
            sensors=before.sensors if sensors is None else sensors,
        )
        if now == before:
            return
        brokers = {**self._memo.brokers, broker: now}
        brokers = {name: left for name, left in brokers.items() if left != Left()}
        self._memo = replace(self._memo, brokers=brokers)
        with contextlib.suppress(EdgeError, OSError):
            if brokers:
                write_atomic(self._path, wire.encode_json(self._memo))
            else:
                self._path.unlink(missing_ok=True)
