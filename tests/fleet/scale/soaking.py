"""Every record counted while collectors are killed in mid-batch and the broker restarts.

    python tests/fleet/scale/soaking.py --minutes 60 [--per-s 200] [--seed N] [--db URL]

Real processes: mosquitto with persistence, `edge-fleet serve --shared` twice, a publisher that
repeats whatever was not acknowledged. At the end each window is in the store once and was counted
once, by its device's evidence and by the fleet's. Without ``--db`` the store is SQLite.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # `fleet_kit` is beside the tests

from fleet_kit import FLEET, Packed, Publisher, draw, pack, record

from edge_contract import broker_url, telemetry
from edge_contract.ports.mqtt import Link, LinkConfig, Ticket
from edge_contract.topics import Topics
from edge_fleet.broker import MosquittoConfig, MosquittoProcess
from edge_fleet.collector import now_ms
from edge_fleet.drift.groups import EVERY_DEVICE
from edge_fleet.store.base import Totals
from edge_fleet.store.sql import SqlStore, open_store

DEVICES = 40
ROWS = 20
COLLECTORS = 2
_BEGUN = "-- started --"
AHEAD = 60
"""So many records before a kill all collectors are at work: it hits one in mid-batch."""


@dataclass
class Collectors:
    """`edge-fleet serve --shared`, one process an ordinal."""

    url: str
    db: str
    log: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, ordinal: int) -> None:
        """Start the one of this ordinal; its predecessor is dead."""
        command = [sys.executable, "-m", "edge_fleet", "serve", "--fleet", FLEET,
                   "--broker", self.url, "--db", self.db, "--shared", "--ordinal", str(ordinal),
                   "--window-s", "60", "--verbose"]  # fmt: skip
        with (self.log / f"{ordinal}.log").open("ab") as log:
            log.write(f"{_BEGUN}\n".encode())
            log.flush()
            self.processes[ordinal] = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def kill(self, ordinal: int) -> None:
        """SIGKILL, and start again."""
        process = self.processes[ordinal]
        process.kill()
        process.wait()
        self.start(ordinal)

    def ready(self) -> bool:
        """Each one collects."""
        self.ensure()
        said = {at: (self.log / f"{at}.log").read_text() for at in self.processes}
        return all(
            said[at].rpartition("collecting fleet")[2].count(_BEGUN) == 0
            and said[at].count("collecting fleet") >= 1
            for at in self.processes
        )

    def ensure(self) -> None:
        """Start those that ended: one that finds its predecessor's lock held gives up."""
        for ordinal, process in self.processes.items():
            if process.poll() is not None:
                self.start(ordinal)

    def stop(self) -> None:
        """In order."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(120)

    def rss_bytes(self) -> dict[int, int]:
        """Resident memory of each that runs."""
        found = {}
        for ordinal, process in self.processes.items():
            try:
                status = Path(f"/proc/{process.pid}/statm").read_text().split()
            except OSError:
                continue
            found[ordinal] = int(status[1]) * os.sysconf("SC_PAGE_SIZE")
        return found

    def said(self) -> str:
        """What they logged last."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.log.glob("*.log")))


class Device:
    """Publishes records and repeats what the broker did not acknowledge, as a spool does."""

    def __init__(self, url: str) -> None:
        self._topics = Topics(FLEET)
        config = LinkConfig(broker_url.parse(url), client_id="soak-devices", reconnect_max_s=1)
        self._link = Link(config)
        self._link.start(60)
        self._waiting: list[tuple[Ticket, float, telemetry.Record]] = []

    def send(self, one: telemetry.Record) -> None:
        """Send one."""
        ticket = self._link.publish(self._topics.telemetry(one.device), telemetry.encode(one))
        self._waiting.append((ticket, time.monotonic(), one))

    def repeat(self, after_s: float) -> int:
        """Send again what has waited so long, was refused, or nobody heard; how many wait.

        As agents do: mosquitto 2.0.11 forgets shared subscriptions when it restarts, and says of
        what comes before the collectors are back that nobody heard it (reason 0x10).
        """
        waiting, self._waiting = self._waiting, []
        now_s = time.monotonic()
        for ticket, since_s, one in waiting:
            if ticket.done and not ticket.error and not ticket.unheard:
                continue
            if ticket.error or ticket.unheard or now_s - since_s >= after_s:
                self.send(one)
            else:
                self._waiting.append((ticket, since_s, one))
        return len(self._waiting)

    def unheard(self) -> str:
        """What waits, for a message."""
        return (
            f"{len(self._waiting)} unacknowledged: {[one.device for *_, one in self._waiting[:5]]}"
        )

    def stop(self) -> None:
        """Disconnect."""
        self._link.stop()


@dataclass(frozen=True)
class Soaked:
    """What a soak saw. ``rss_bytes``: of each collector, over time since its own start."""

    sent: int
    kills: int
    broker_restarts: int
    seconds: float
    rss_bytes: dict[int, list[int]]


def soak(
    db: str, folder: Path, packed: Packed, rng: np.random.Generator, *,
    records: int, per_s: float, kill_every: int, restart_every: int, timeout_s: float,
) -> Soaked:  # fmt: skip
    """Send ``records`` with faults meanwhile. Raises AssertionError when one is lost or doubled."""
    began = time.monotonic()
    store = open_store(db, create=True)
    kills = restarts = 0
    rss: dict[int, list[int]] = {ordinal: [] for ordinal in range(COLLECTORS)}
    config = MosquittoConfig(directory=folder / "broker")
    with MosquittoProcess(config) as broker, _collectors(broker.url, db, folder) as collectors:
        publisher = Publisher(broker.url)
        publisher.bundle(packed)
        publisher.close()
        device = Device(broker.url)
        kill_at, restart_at = (
            _moments(rng, records, kill_every),
            set(range(restart_every // 2, records, restart_every)),
        )
        _until(collectors.ready, timeout_s, collectors)  # the broker keeps what comes from now on
        began = time.monotonic()
        for at in range(records):
            if at + AHEAD in kill_at:
                _until(collectors.ready, timeout_s, collectors)
            ahead_s = at / per_s - (time.monotonic() - began)
            if ahead_s > 0:
                time.sleep(ahead_s)
            counts = packed.counts(draw(rng, ROWS))
            moment = now_ms()
            device.send(
                record(packed, counts, device=f"pi-{at % DEVICES}", seq=at // DEVICES,
                       start_ms=moment - 60_000, end_ms=moment)
            )  # fmt: skip
            if at in kill_at:
                collectors.kill(int(rng.integers(COLLECTORS)))
                kills += 1
            if at in restart_at:
                broker.restart()
                restarts += 1
            if at % 200 == 0:
                collectors.ensure()
                device.repeat(10.0)
                for ordinal, size in collectors.rss_bytes().items():
                    rss[ordinal].append(size)
        _until(
            lambda: _settled(collectors, device, store, records),
            timeout_s,
            collectors,
            lambda: f"{device.unheard()}; {_totals(store)}",
        )
        device.stop()
    _check(store, packed, records)
    store.close()
    return Soaked(records, kills, restarts, time.monotonic() - began, rss)


def _moments(rng: np.random.Generator, records: int, every: int) -> set[int]:
    """One moment in each stretch of ``every`` records, anywhere in it."""
    return {start + int(rng.integers(AHEAD, every)) for start in range(0, records - every, every)}


@contextmanager
def _collectors(url: str, db: str, folder: Path) -> Iterator[Collectors]:
    (folder / "logs").mkdir()
    made = Collectors(url, db, folder / "logs")
    for ordinal in range(COLLECTORS):
        made.start(ordinal)
    try:
        yield made
    finally:
        made.stop()


def _settled(collectors: Collectors, device: Device, store: SqlStore, records: int) -> bool:
    collectors.ensure()
    if device.repeat(10.0):
        return False
    totals = _totals(store)
    return bool(totals.windows >= records and totals.pending == 0)


def _totals(store: SqlStore) -> Totals:
    with store.reading() as tx:
        return tx.totals()


def _until(
    condition: Callable[[], bool],
    timeout_s: float,
    collectors: Collectors,
    state: Callable[[], str] = str,
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not settled: {state()}\n{collectors.said()}"
        time.sleep(0.1)


def _check(store: SqlStore, packed: Packed, records: int) -> None:
    """Each record once: by itself, in its device's figures, in the evidence of both scopes."""
    with store.reading() as tx:
        kept = Counter((one.device, one.seq) for one in tx.records())
        totals = tx.totals()
        detectors = tx.all_detectors()
        fleet = tx.groups(packed.digest, [EVERY_DEVICE])[EVERY_DEVICE]
        faults = {(one.device, one.kind): one.detail for one in tx.faults()}
    wanted = Counter((f"pi-{at % DEVICES}", at // DEVICES) for at in range(records))
    assert kept == wanted, f"lost {wanted - kept}, doubled {kept - wanted}"
    assert faults == {}
    assert (totals.windows, totals.rows) == (records, records * ROWS)
    assert sum(one.windows for one in detectors) == fleet.windows == records
    assert sum(one.rows for one in detectors) == fleet.rows == records * ROWS


def main() -> None:
    """Soak for so many minutes, and print what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--per-s", type=float, default=200.0)
    parser.add_argument(
        "--seed", type=int, default=int(np.random.SeedSequence().generate_state(1)[0])
    )
    parser.add_argument("--db", default="")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    records = max(int(options.minutes * 60 * options.per_s), 1000)
    with tempfile.TemporaryDirectory() as folder:
        done = soak(
            options.db or f"sqlite:///{folder}/soak.db",
            Path(folder),
            pack(np.random.default_rng(20)),
            np.random.default_rng(options.seed),
            records=records,
            per_s=options.per_s,
            kill_every=int(20 * options.per_s),
            restart_every=int(120 * options.per_s),
            timeout_s=600.0,
        )
    print(
        f"{done.sent} records in {done.seconds:.0f} s, {done.kills} kills, {done.broker_restarts}"
        " restarts of the broker: none lost, none doubled"
    )
    for ordinal, sizes in done.rss_bytes.items():
        print(f"collector {ordinal}: at most {max(sizes, default=0) / 2**20:.0f} MiB resident")


if __name__ == "__main__":
    main()
