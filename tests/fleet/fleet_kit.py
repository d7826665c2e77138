"""A bundle with a real profile, and a device that publishes real records of it."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from edge_contract import broker_url, bundle, chunks, messages, profile, telemetry
from edge_contract import manifest as manifests
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.profile import Monitor, Profile
from edge_contract.topics import Topics
from edge_fleet.collector import Collector, CollectorConfig
from edge_fleet.drift.budget import Budget
from edge_fleet.store.sql import SqlStore

FLEET = "test"
REFERENCE_ROWS = 20_000
BUDGET = Budget(1, 60)


def number(name: str, values: np.ndarray, *, design_effect: float = 1.0) -> Monitor:
    """A quantile monitor as the packager makes one, counting ``values``."""
    edges = tuple(np.unique(np.quantile(values, np.linspace(0, 1, profile.BINS_MAX + 1))).tolist())
    cells = len(edges) - 1 + len(profile.NUMBER_SPECIALS)
    empty = Monitor(name=name, kind="quantile", edges=edges, counts=(0,) * cells)
    counts = tuple(profile.count_numbers(empty, values).tolist())
    return msgspec.structs.replace(
        empty,
        counts=counts,
        mean=float(values.mean()),
        std=float(values.std()),
        design_effect=design_effect,
    )


def lattice(name: str, values: np.ndarray) -> Monitor:
    """A monitor with one cell a value."""
    edges = tuple(np.unique(values).tolist())
    empty = Monitor(name=name, kind="lattice", edges=edges, counts=(0,) * (len(edges) + 5))
    counts = tuple(profile.count_numbers(empty, values).tolist())
    return msgspec.structs.replace(empty, counts=counts)


def category(name: str, values: list[str]) -> Monitor:
    """A monitor of a category."""
    known = tuple(sorted(set(values)))
    empty = Monitor(name=name, kind="category", categories=known, counts=(0,) * (len(known) + 3))
    counts = tuple(profile.count_categories(empty, values).tolist())
    return msgspec.structs.replace(empty, counts=counts)


def score(labels: np.ndarray, scores: np.ndarray, count: int) -> Monitor:
    """A monitor of ``count`` labels and their scores."""
    edges = tuple(np.linspace(0, 1, profile.SCORE_BINS + 1).tolist())
    empty = Monitor(
        name="prediction",
        kind="score",
        source="output",
        edges=edges,
        labels=count,
        counts=(0,) * (count * profile.SCORE_BINS + 1),
    )
    counts = tuple(profile.count_scores(empty, labels, scores).tolist())
    return msgspec.structs.replace(empty, counts=counts)


@dataclass
class Rows:
    """One window's raw rows; a test shifts what it wants to shift."""

    temperature: np.ndarray
    level: np.ndarray
    colour: list[str | None]
    score: np.ndarray


@dataclass(frozen=True)
class Packed:
    """A bundle on the fleet's side: everything a publisher would put on the broker."""

    profile: Profile
    manifest_bytes: bytes
    stored: bytes
    chunks: dict[str, bytes] = field(repr=False)

    @property
    def digest(self) -> str:
        """The bundle's digest."""
        return manifests.digest(self.manifest_bytes)

    def counts(self, rows: Rows) -> np.ndarray:
        """What an agent counts of ``rows``."""
        temperature, level, colour, prediction = self.profile.monitors[:4]
        return np.concatenate(
            [
                profile.count_numbers(temperature, rows.temperature),
                profile.count_numbers(level, rows.level),
                profile.count_categories(colour, rows.colour),
                profile.count_scores(prediction, (rows.score >= 0.5).astype(np.int64), rows.score),
                *(
                    profile.count_numbers(monitor, np.resize(rows.temperature, len(rows.score)))
                    for monitor in self.profile.monitors[4:]
                ),
            ]
        )


def draw(rng: np.random.Generator, n: int) -> Rows:
    """Quiet rows."""
    return Rows(
        temperature=rng.normal(20.0, 2.0, n),
        level=rng.integers(0, 5, n).astype(np.float64),
        colour=[str(c) for c in rng.choice(["red", "green", "blue"], n, p=[0.6, 0.3, 0.1])],
        score=rng.beta(2.0, 3.0, n),
    )


def pack(rng: np.random.Generator, version: str = "1.0", extra_monitors: int = 0) -> Packed:
    """A bundle whose profile counts 20,000 quiet rows."""
    rows = draw(rng, REFERENCE_ROWS)
    monitors = (
        number("temperature", rows.temperature),
        lattice("level", rows.level),
        category("colour", [c for c in rows.colour if c]),
        score((rows.score >= 0.5).astype(np.int64), rows.score, 2),
        *(
            number(f"extra{i}", rng.normal(20.0, 2.0, REFERENCE_ROWS))
            for i in range(extra_monitors)
        ),
    )
    made = Profile(rows=REFERENCE_ROWS, monitors=monitors)
    model, _ = bundle.encode_member(manifests.MODEL_FILE, version.encode())
    entry, stored = bundle.encode_member(manifests.PROFILE_FILE, profile.encode(made))
    manifest_bytes = manifests.encode(
        manifests.Manifest(
            schema=manifests.SCHEMA,
            name="boiler",
            version=version,
            task="classification",
            features=(),
            inputs=(manifests.Tensor(name="x", dtype="float32", shape=(None, 4)),),
            outputs=manifests.Outputs(
                tensors=("label", "scores"), label="label", scores="scores", labels=("ok", "worn")
            ),
            files=(model, entry),
            runtime=manifests.Runtime(
                ir=8, opsets={"": 17}, ops=("Add",), onnxruntime="1.18", ram_bytes=1000
            ),
            compression=manifests.Compression(mode="none", stock_bytes=10),
            parity=manifests.Parity(
                rows=1, flips=0, flips_max=0.0, diff_max=0.0, diff_p99=0.0, diff_budget=0.0
            ),
            provenance=manifests.Provenance(
                source_sha256="0" * 64, source_type="onnx", libraries={}
            ),
        )
    )
    parts = {hashlib.sha256(part).hexdigest(): part for part in chunks.split(stored)}
    parts[manifests.digest(manifest_bytes)] = manifest_bytes
    if entry.index:
        parts[entry.index] = chunks.index_of(stored)
    return Packed(made, manifest_bytes, stored, parts)


def record(
    packed: Packed,
    counts: np.ndarray,
    *,
    device: str = "pi-1",
    boot: int = 1,
    seq: int = 1,
    rows: int | None = None,
    start_ms: int = 1_700_000_000_000,
    end_ms: int | None = None,
) -> telemetry.Record:
    """One window as an agent sends it."""
    total = int(counts[: packed.profile.monitors[0].cells].sum()) if rows is None else rows
    return telemetry.Record(
        schema=telemetry.SCHEMA,
        device=device,
        boot=boot,
        seq=seq,
        model="boiler",
        version="1.0",
        bundle=bytes.fromhex(packed.digest),
        start_ms=start_ms,
        end_ms=start_ms + 60_000 if end_ms is None else end_ms,
        synchronised=True,
        rows=total,
        refused=0,
        failed=0,
        coding=telemetry.CODING_LEB128,
        counts=telemetry.pack_counts(counts),
        latency=telemetry.pack_counts([0] * telemetry.LATENCY_BUCKETS),
    )


class Publisher:
    """A connection that publishes as devices and publishers do, and waits for the broker."""

    def __init__(self, url: str) -> None:
        self.topics = Topics(FLEET)
        self._link = Link(LinkConfig(broker_url.parse(url), client_id="test-publisher"))
        self._link.start(60)

    def bundle(self, packed: Packed) -> None:
        """Put a bundle's chunks on the broker, retained."""
        for sha256, part in packed.chunks.items():
            self._link.publish(self.topics.chunk(sha256), part, retain=True).wait(60)

    def record(self, one: telemetry.Record, *, device: str | None = None) -> None:
        """Send one record, on the topic of its device unless told otherwise."""
        self.payload(device or one.device, telemetry.encode(one))

    def payload(self, device: str, payload: bytes) -> None:
        """Send bytes as telemetry."""
        self._link.publish(self.topics.telemetry(device), payload).wait(60)

    def records(self, many: list[telemetry.Record]) -> None:
        """Send many, then wait for all."""
        tickets = [
            self._link.publish(self.topics.telemetry(one.device), telemetry.encode(one))
            for one in many
        ]
        for ticket in tickets:
            ticket.wait(60)

    def message(
        self,
        topic: str,
        message: messages.Status | messages.Reported | messages.Event,
        *,
        retain: bool = False,
    ) -> None:
        """Send one JSON message."""
        self.raw(topic, messages.encode(message), retain=retain)

    def raw(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send bytes."""
        self._link.publish(topic, payload, retain=retain).wait(60)

    def close(self) -> None:
        """Disconnect."""
        self._link.stop()


def until(condition: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    """Poll ``condition`` until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s: {what}"
        time.sleep(0.02)


@contextmanager
def collecting(url: str, store: SqlStore) -> Iterator[None]:
    """A collector in a thread; its errors are the test's."""
    stop, started = threading.Event(), threading.Event()
    errors: list[BaseException] = []
    config = CollectorConfig(broker_url.parse(url), FLEET, budget=BUDGET, retry_s=0.05)

    def run() -> None:
        try:
            Collector(config, store).run(stop, started.set)
        except BaseException as error:  # noqa: BLE001 (raised in the test's thread)
            errors.append(error)
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(60)
        if errors:
            raise errors[0]
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def totals(store: SqlStore) -> Any:
    with store.reading() as tx:
        return tx.totals()


def settled(store: SqlStore, windows: int, *, pending: int = 0) -> Callable[[], bool]:
    return lambda: (totals(store).windows, totals(store).pending) == (windows, pending)


def fault_kinds(store: SqlStore) -> dict[tuple[str, str], int]:
    with store.reading() as tx:
        return {(fault.device, fault.kind): fault.count for fault in tx.faults()}
