"""A store that hears of devices, and devices that follow what is pending for them."""

from __future__ import annotations

from fleet_kit import FLEET

from edge_contract import messages
from edge_contract.messages import Desired, Failure, Hardware, ModelReport, Reported
from edge_contract.topics import Topics
from edge_fleet.commands import rollout
from edge_fleet.rollouts import facts
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.runner import RolloutRun
from edge_fleet.rollouts.state import Rollout
from edge_fleet.store.base import ReportSeen, StatusSeen, Transaction
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.sql import SqlStore

TOPICS = Topics(FLEET)
BEGAN_MS = 1_700_000_000_000
HARDWARE = Hardware(
    machine="aarch64", cpus=4, ram_bytes=10**9, system="Linux", python="3.11", onnxruntime="1.20"
)
DIGESTS = {"1.0": "1" * 64, "2.0": "2" * 64}


class Fleet:
    """Devices that a store hears of; each follows what is pending for it, as an agent does."""

    def __init__(self, store: SqlStore, count: int) -> None:
        self.store, self.now_ms = store, BEGAN_MS
        self.heard: dict[str, Desired] = {f"d{i:02d}": Desired(revision=0) for i in range(count)}
        self.bad: set[str] = set()
        self.labels: dict[str, str] = {"site": "lyon"}
        self.ahead_ms = 0  # of the devices' clocks; this server's is right
        self.mute: set[str] = set()
        store.claim(FLEET)
        self.live([])

    def tell(self, name: str, revision: int | None = None) -> None:
        """Its status and report, as the collector keeps them."""
        with self.store.transaction() as tx:
            self._tell(tx, name, revision)

    def _tell(self, tx: Transaction, name: str, revision: int | None = None) -> None:
        desired = self.heard[name]
        word = desired.models.get("pump", "stable")
        wanted = "1.0" if word == "stable" else word
        version = "1.0" if name in self.bad else wanted
        failed = wanted != version
        model = ModelReport(
            phase="committed", active=version, digest=DIGESTS.get(version, "3" * 64),
            failure=Failure(version=wanted, digest="2" * 64) if failed else None,
        )  # fmt: skip
        said = Reported(
            boot=1, at_ms=self.now_ms + self.ahead_ms, agent="1", hardware=HARDWARE,
            labels=self.labels, models={"pump": model},
            revision=desired.revision if revision is None else revision,
        )  # fmt: skip
        tx.status(StatusSeen(name, True, 1, "1", self.now_ms, False))
        tx.report(ReportSeen(name, messages.encode(said), self.now_ms, False))

    def live(self, pending: list[Wish]) -> None:
        self.now_ms += 60_000
        for wish in pending:
            desired = messages.decode(wish.desired, Desired)
            if desired.revision > self.heard[wish.device].revision:
                self.heard[wish.device] = desired
        with self.store.transaction() as tx:
            for name in [each for each in self.heard if each not in self.mute]:
                self._tell(tx, name)

    def run(self) -> RolloutRun:
        """A process that just started."""
        return RolloutRun(self.store, TOPICS, lambda: self.now_ms)

    def rollouts(self) -> list[Rollout]:
        with self.store.reading() as tx:
            return facts.everything(tx)

    def begin(self, version: str = "2.0", **values: object) -> None:
        rollout.begin(self.store, order(version, **values), self.now_ms)


def order(version: str = "2.0", **values: object) -> Order:
    values = {"waves": orders.waves("1,50%,100%"), **values}
    return orders.made(fleet=FLEET, model="pump", version=version, **values)
