"""What storing and judging a window costs, beside a subscriber that throws messages away.

    python benchmarks/collect.py [--quick] [--json FILE]

Both drain the same records from the same broker (mosquitto where there is one) in the same run, so
the ratio says more than the figures: other work on the machine slows both. The collector validates,
stores in SQLite with synchronous=FULL, evaluates drift on every monitor and acknowledges after
commit. A window counts 1,000 rows of 20 numeric and 5 categorical features.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_contract import broker_url, bundle, profile, telemetry
from edge_contract import manifest as manifests
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals
from edge_contract.topics import Topics
from edge_fleet import compaction, kept
from edge_fleet.brokers import running_broker
from edge_fleet.collector import Collector, CollectorConfig
from edge_fleet.drift.edetector import DriftTable, advance
from edge_fleet.library import Library
from edge_fleet.store.sql import SqlStore, open_store

FLEET = "bench"
TOPICS = Topics(FLEET)
DEVICES = 200
ROWS = 1000
REFERENCE_ROWS = 20_000
EDGES = tuple(np.linspace(-2.0, 2.0, 33).tolist())
GOALS = {
    "stored_per_cpu_s": 1_650.0,  # two collectors: a million devices at a window per 5 minutes
    "stored_to_bare_ratio": 0.1,
    "drift_us_per_window": 200.0,  # table, recursion and levels; without decoding
    "decode_us_per_window": 300.0,
    "read_to_one_by_one_ratio": 0.8,  # of a report's walk over the store to decoding each alone
    "compact_us_per_window": 1_000.0,  # 2.9 million a day: 48 minutes of one processor
}


@dataclass(frozen=True)
class Bench:
    """A bundle with a profile, and records of it."""

    profile: Profile
    manifest: bytes
    stored_profile: bytes
    payloads: list[tuple[str, bytes]]

    @property
    def digest(self) -> str:
        """The bundle's."""
        return manifests.digest(self.manifest)


def make(windows: int, rng: np.random.Generator) -> Bench:
    """20 numeric and 5 categorical monitors, and ``windows`` records over 200 devices."""
    numeric = [np.full(32, 1 / 32)] * 20
    categorical = [rng.dirichlet(np.full(12, 2.0)) for _ in range(5)]
    monitors = [_number(i, p, rng) for i, p in enumerate(numeric)]
    monitors += [_category(i, p, rng) for i, p in enumerate(categorical)]
    made = Profile(rows=REFERENCE_ROWS, monitors=tuple(monitors))
    entry, stored = bundle.encode_member(manifests.PROFILE_FILE, profile.encode(made))
    manifest = _manifest(entry)
    reference = Residuals(made)
    shares = [np.concatenate([p, np.zeros(5)]) for p in numeric]
    shares += [np.concatenate([p, np.zeros(3)]) for p in categorical]
    payloads = []
    for at in range(windows):
        counts = np.concatenate([rng.multinomial(ROWS, p) for p in shares])
        payloads.append(_record(f"pi-{at % DEVICES}", at, manifest, reference.write(counts, ROWS)))
    return Bench(made, manifest, stored, payloads)


def _number(at: int, p: np.ndarray, rng: np.random.Generator) -> Monitor:
    counts = (*rng.multinomial(REFERENCE_ROWS, p).tolist(), 0, 0, 0, 0, 0)
    return Monitor(name=f"number{at}", kind="quantile", edges=EDGES, counts=counts)


def _category(at: int, p: np.ndarray, rng: np.random.Generator) -> Monitor:
    counts = (*rng.multinomial(REFERENCE_ROWS, p).tolist(), 0, 0, 0)
    names = tuple(f"c{i:02}" for i in range(len(p)))
    return Monitor(name=f"category{at}", kind="category", categories=names, counts=counts)


def _manifest(entry: manifests.File) -> bytes:
    model, _ = bundle.encode_member(manifests.MODEL_FILE, b"not run here")
    return manifests.encode(
        manifests.Manifest(
            schema=manifests.SCHEMA,
            name="bench",
            version="1",
            task="tensors",
            features=(),
            inputs=(manifests.Tensor(name="x", dtype="float32", shape=(None, 25)),),
            outputs=manifests.Outputs(tensors=("y",)),
            files=(model, entry),
            runtime=manifests.Runtime(ir=8, opsets={"": 17}, ops=(), onnxruntime="1", ram_bytes=1),
            compression=manifests.Compression(mode="none", stock_bytes=1),
            parity=manifests.Parity(
                rows=1, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0
            ),
            provenance=manifests.Provenance(
                source_sha256="0" * 64, source_type="onnx", libraries={}
            ),
        )
    )


def _record(device: str, seq: int, manifest: bytes, counts: bytes) -> tuple[str, bytes]:
    now_ms = time.time_ns() // 1_000_000
    record = telemetry.Record(
        schema=telemetry.SCHEMA,
        device=device,
        boot=1,
        seq=seq,
        model="bench",
        version="1",
        bundle=bytes.fromhex(manifests.digest(manifest)),
        start_ms=now_ms - 300_000,
        end_ms=now_ms,
        synchronised=True,
        rows=ROWS,
        refused=0,
        failed=0,
        coding=telemetry.CODING_RESIDUALS,
        counts=counts,
        latency=telemetry.pack_counts([0] * telemetry.LATENCY_BUCKETS),
    )
    return TOPICS.telemetry(device), telemetry.encode(record)


def publish(url: str, bench: Bench) -> None:
    """Send every record, and wait until the broker has it."""
    link = Link(LinkConfig(broker_url.parse(url), client_id="bench-publisher"))
    link.start(10)
    tickets = [link.publish(topic, payload) for topic, payload in bench.payloads]
    for ticket in tickets:
        ticket.wait(120)
    link.stop()


@dataclass(frozen=True)
class Drained:
    """How many a second, by the clock and by this process's CPU time (the broker's is apart)."""

    per_s: float
    per_cpu_s: float


class Stopwatch:
    """Times a drain of ``count`` messages."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> Drained:
        """What came of it."""
        seconds, cpu_s = time.perf_counter() - self._began, time.process_time() - self._cpu
        return Drained(self._count / seconds, self._count / cpu_s)


def drain_bare(url: str, bench: Bench) -> Drained:
    """Messages a second of a subscriber that throws away what the broker kept for it."""
    seen, done = 0, threading.Event()

    def count(_message: Message) -> None:
        nonlocal seen
        seen += 1
        if seen == len(bench.payloads):
            done.set()

    config = LinkConfig(
        broker_url.parse(url), "bench-bare", session_expiry_s=3600, receive_maximum=500
    )
    link = Link(config)
    link.start(10)
    link.subscribe([TOPICS.collector_filters()[0]]).wait(10)
    link.stop()
    publish(url, bench)
    link = Link(config, on_message=count)
    watch = Stopwatch(len(bench.payloads))
    link.start(10)
    if not done.wait(300):
        raise SystemExit(f"the bare subscriber got {seen} of {len(bench.payloads)} messages")
    drained = watch.stop()
    link.stop()
    return drained


def drain_stored(url: str, bench: Bench, store: SqlStore) -> Drained:
    """Windows a second of the collector, from connecting to the last commit."""
    file = manifests.decode(bench.manifest).file(manifests.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(bench.digest, bench.manifest, 0)
        tx.put_blob(file.sha256, bench.stored_profile, 0)
    config = CollectorConfig(broker_url.parse(url), FLEET)
    stop = threading.Event()
    Collector(config, store).run(stop, stop.set)  # makes the session, then stops at once
    publish(url, bench)
    stop = threading.Event()
    thread = threading.Thread(target=Collector(config, store).run, args=(stop,))
    watch = Stopwatch(len(bench.payloads))
    thread.start()
    deadline = time.perf_counter() + 600
    while _stored(store) < len(bench.payloads):
        if time.perf_counter() > deadline:
            raise SystemExit(f"the collector stored {_stored(store)} of {len(bench.payloads)}")
        time.sleep(0.05)
    drained = watch.stop()
    stop.set()
    thread.join(30)
    return drained


def _stored(store: SqlStore) -> int:
    with store.reading() as tx:
        return tx.totals().windows


def time_reading(store: SqlStore, bench: Bench) -> tuple[float, float]:
    """CPU microseconds a window: what a report walks through, and decoding each window alone."""
    with store.reading() as tx:
        known = Library().find(tx, bench.digest)
        if known is None:
            raise SystemExit("the store lacks the profile")
        began = time.process_time()
        together = sum(kept.by_device(tx, known, 0).values())
        many_s = time.process_time() - began
        began, alone = time.process_time(), np.zeros(known.profile.cells, dtype=np.int64)
        for some in tx.counted_since(bench.digest, 0, 500):
            for one in some:
                alone += telemetry.counts_of(telemetry.decode(one.record), known.reference)
        one_s = time.process_time() - began
    if not np.array_equal(together, alone):
        raise SystemExit("the two ways of reading do not agree")
    return many_s / len(bench.payloads) * 1e6, one_s / len(bench.payloads) * 1e6


def time_compaction(store: SqlStore, bench: Bench) -> float:
    """CPU microseconds a window: into hours, then into days; 10 windows of a device in an hour."""
    began = time.process_time()
    later_ms = time.time_ns() // 1_000_000 + 3 * 86_400_000
    done = compaction.compact(
        store, compaction.Retention(0, 0), later_ms, pause=lambda _seconds: False
    )
    if done.windows != len(bench.payloads):
        raise SystemExit(f"{done.windows} of {len(bench.payloads)} windows were merged")
    return (time.process_time() - began) / len(bench.payloads) * 1e6


def time_drift(bench: Bench, batch: int = 100) -> tuple[float, float]:
    """Microseconds a window, best of several batches: evaluating drift, and decoding counts."""
    table = DriftTable(bench.profile)
    records = [telemetry.decode(payload) for _, payload in bench.payloads[:batch]]
    drift_s, decode_s = [], []
    state = table.start(len(records))
    reference = Residuals(bench.profile)
    for _ in range(20):
        began = time.perf_counter()
        counts = telemetry.counts_of_many(records, reference)
        decode_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        state = advance(state, table.log_e(counts))
        table.levels(state)
        drift_s.append(time.perf_counter() - began)
    return min(drift_s) / len(records) * 1e6, min(decode_s) / len(records) * 1e6


def measure(windows: int) -> dict[str, float]:
    """All figures."""
    bench = make(windows, np.random.default_rng(0))
    drift_us, decode_us = time_drift(bench)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, kind = stack.enter_context(running_broker(0, None, embedded=False))
        print(f"{windows} windows of {len(bench.payloads[0][1])} bytes over a {kind}")
        bare = drain_bare(url, bench)
        store = open_store(f"sqlite:///{folder}/bench.db", create=True)
        stored = drain_stored(url, bench, store)
        many_us, one_us = time_reading(store, bench)
        compact_us = time_compaction(store, bench)
        store.close()
    return {
        "bare_per_s": bare.per_s,
        "bare_per_cpu_s": bare.per_cpu_s,
        "stored_per_s": stored.per_s,
        "stored_per_cpu_s": stored.per_cpu_s,
        "stored_to_bare_ratio": stored.per_cpu_s / bare.per_cpu_s,
        "drift_us_per_window": drift_us,
        "decode_us_per_window": decode_us,
        "read_us_per_window": many_us,
        "read_one_by_one_us_per_window": one_us,
        "read_to_one_by_one_ratio": many_us / one_us,
        "compact_us_per_window": compact_us,
    }


def met(name: str, figure: float) -> bool:
    """Costs are to stay below their goal, the others above."""
    cost = "_us_" in name or name.startswith("read_")
    return figure <= GOALS[name] if cost else figure >= GOALS[name]


def main() -> None:
    """Print the figures; write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 windows instead of 20,000")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = measure(2_000 if options.quick else 20_000)
    for name, figure in figures.items():
        goal = ""
        if name in GOALS:
            goal = f"goal {GOALS[name]:g}: {'met' if met(name, figure) else 'missed'}"
        print(f"{name:<24} {figure:10.2f}   {goal}".rstrip())
    if options.json:
        goals = {name: [figures[name], GOALS[name], met(name, figures[name])] for name in GOALS}
        options.json.write_text(json.dumps({**figures, "goals": goals}, indent=2) + "\n")


if __name__ == "__main__":
    main()
