"""Judges what was gathered: each finding says what is, why it matters and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from edge_fleet.doctor.facts import (
    BrokerFacts,
    Facts,
    FleetFacts,
    HttpFacts,
    MachineFacts,
    StoreFacts,
)

State = Literal["ok", "warning", "broken"]
DAY_MS = 86_400_000
SOON_MS = 14 * DAY_MS
TIMESTAMP_SOON_MS = DAY_MS
"""A timestamp lives for days and is renewed by itself; others are renewed by people."""
PACKET_LEAST_BYTES = 256 * 1024
"""Chunks are 128 KiB; telemetry of the widest models and metadata stay below this."""
FREE_LEAST_BYTES = 1 << 30
FSYNC_SLOW_MS = 50.0
"""A collector commits five times a second at most, and waits for each."""
CLOCK_OFF_MS = 5_000.0
BEAT_LATE_MS = 60_000
GONE_MS = DAY_MS
LAG_LONG_S = 900.0
POSTGRES_OLDEST = 130_000
SAFE = {"fsync": "on", "full_page_writes": "on"}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. ``why`` and ``advice`` are "" where all is well."""

    area: str
    state: State
    what: str
    why: str = ""
    advice: str = ""


def examine(facts: Facts, schema: int) -> list[Finding]:
    """Every finding, by area. ``schema``: the version of the store that this program knows."""
    now = facts.now_ms
    found = [*_machine(facts.machine, now), *_store(facts.store, schema)]
    if facts.fleet is not None:
        found += _fleet(facts.fleet, now)
    if facts.broker is not None:
        found += _broker(facts.broker, facts.fleet, now)
    if facts.http is not None:
        found += _http(facts.http, now)
    return found


def _broker(it: BrokerFacts, fleet: FleetFacts | None, now_ms: int) -> Iterator[Finding]:
    area = "broker"
    if it.error:
        yield Finding(
            area, "broken", it.error, "nothing reaches the fleet and no version goes out",
            "Check address, user and password, and that a broker speaking MQTT 5 runs there.",
        )  # fmt: skip
        return
    yield Finding(area, "ok", f"{it.url} lets this account in with MQTT 5")
    yield from _offered(it)
    yield from _rights(it)
    if fleet is not None and it.status < fleet.statuses and not it.unreadable:
        missing = fleet.statuses - it.status
        yield Finding(
            area, "warning",
            f"it retains the status of {it.status} devices, the store knows {fleet.statuses}",
            f"{missing} devices look as they last did when the collector starts anew",
            "Check the rights to read, mosquitto's max_queued_messages (0) and its persistence.",
        )  # fmt: skip
    if it.desired_missing:
        some = ", ".join(it.desired_missing[:5])
        yield Finding(
            area, "warning", f"no `desired` is retained for {len(it.desired_missing)}: {some}",
            "these devices do not learn what they are to run when they connect",
            "Was the broker's store lost? `edge-fleet serve` sends it again within minutes.",
        )  # fmt: skip
    yield from _certificate(area, "the broker's certificate", it.certificate_ms, now_ms)
    for role, ends_ms in sorted(it.expiries.items()):
        soon = TIMESTAMP_SOON_MS if role == "timestamp" else SOON_MS
        yield _ending("metadata", f"TUF {role}", ends_ms, now_ms, soon=soon,
                      why="devices then take no new version",
                      advice="Renew it: edge-pack keys status says how.")  # fmt: skip
    if not it.expiries:
        yield Finding(
            "metadata", "warning", "no signed metadata is retained, or it may not be read",
            "without it no device takes a version", "Publish once: edge-pack publish FILE.",
        )  # fmt: skip


def _offered(it: BrokerFacts) -> Iterator[Finding]:
    area = "broker"
    packet = it.offered.get("MaximumPacketSize")
    if packet is not None and packet < PACKET_LEAST_BYTES:
        yield Finding(
            area, "broken", f"it takes packets up to {packet} bytes only",
            "chunks of bundles and wide telemetry are larger and are lost",
            f"Allow {PACKET_LEAST_BYTES} bytes (mosquitto: max_packet_size).",
        )  # fmt: skip
    else:
        yield Finding(area, "ok", f"packets: {'no bound' if packet is None else packet}")
    for name, what, why in (
        ("RetainAvailable", "retained messages", "bundles, wishes and status are retained"),
        ("WildcardSubscriptionAvailable", "wildcards", "a collector hears all devices by them"),
        ("SharedSubscriptionAvailable", "shared subscriptions", "serve --shared needs them"),
    ):
        if it.offered.get(name, 1):
            continue
        needed = name != "SharedSubscriptionAvailable"
        yield Finding(area, "broken" if needed else "warning", f"it has no {what}", why,
                      "Switch them on, or take another broker.")  # fmt: skip
    if it.offered.get("MaximumQoS", 2) < 1:
        yield Finding(area, "broken", "it takes QoS 0 only", "nothing is acknowledged: records get"
                      " lost", "Allow QoS 1.")  # fmt: skip
    expiry = it.offered.get("SessionExpiryInterval")
    if expiry is not None and expiry < DAY_MS // 1000:
        yield Finding(
            area, "warning", f"it keeps sessions for {expiry} s only",
            "what comes while the collector is down longer than that is lost",
            "Allow sessions of days (EMQX: session_expiry_interval).",
        )  # fmt: skip


def _rights(it: BrokerFacts) -> Iterator[Finding]:
    area = "rights"
    for each in it.unreadable:
        yield Finding(area, "broken", f"may not subscribe to {each}", "the fleet hears nothing of"
                      " it", "Give the account its rights: edge-pack broker-acl.")  # fmt: skip
    for each in it.unwritable:
        yield Finding(area, "broken", f"may not write {each}", "devices are not told what to run",
                      "Give the account its rights: edge-pack broker-acl.")  # fmt: skip
    for each in it.forgeable:
        yield Finding(
            area, "warning", f"may write {each}, which is the publisher's alone",
            "whoever has this account can remove signed metadata (not forge it)",
            "Make accounts with rights: edge-pack broker-acl.",
        )  # fmt: skip
    if it.anonymous:
        yield Finding(
            area, "warning", "lets in whoever has no name",
            "anybody in its network reads telemetry and can send what looks like a device's",
            "Switch it off (mosquitto: allow_anonymous false): edge-pack broker-acl.",
        )  # fmt: skip
    if not (it.unreadable or it.unwritable):
        yield Finding(area, "ok", "may read and write what a fleet server needs")


def _store(it: StoreFacts, known: int) -> Iterator[Finding]:
    area = "store"
    if it.error:
        yield Finding(
            area, "broken", it.error, "nothing is kept, and nothing acknowledged",
            it.advice or "Check the address, that its server runs, and its disk.",
        )  # fmt: skip
        return
    if it.version is None:
        yield Finding(area, "broken", f"{it.url} holds no fleet", "there is nothing to look at",
                      "Name it with --db; `edge-fleet serve` makes it.")  # fmt: skip
        return
    if it.version > known:
        yield Finding(area, "broken", f"schema {it.version}, this edge-fleet knows {known}",
                      "it was written by a newer one", "Update edge-pack here.")  # fmt: skip
    elif it.version < known:
        yield Finding(
            area, "broken", f"schema {it.version}, this edge-fleet needs {known}",
            "commands refuse it until it is upgraded",
            "Take a backup (edge-fleet backup), then start `edge-fleet serve` once.",
        )  # fmt: skip
    else:
        yield Finding(area, "ok", f"{it.url}: schema {known}, {it.size_bytes / 1e6:.1f} MB")
    if it.damage:
        yield Finding(area, "broken", f"the file is damaged: {it.damage}", "answers are wrong",
                      "Restore the last backup: edge-fleet restore.")  # fmt: skip
    if it.missing_indexes:
        yield Finding(
            area, "warning", f"indexes are missing: {', '.join(it.missing_indexes)}",
            "questions that used to take milliseconds read whole tables",
            "edge-fleet backup, then restore into a new database: it makes all of them.",
        )  # fmt: skip
    yield from _disk(it)
    yield from _postgres(it)
    if it.ahead_ms is not None and abs(it.ahead_ms) > CLOCK_OFF_MS:
        yield _clock("the database's clock", it.ahead_ms)


def _disk(it: StoreFacts) -> Iterator[Finding]:
    area = "disk"
    if 0 <= it.free_bytes < max(FREE_LEAST_BYTES, it.size_bytes // 10):
        full = it.free_bytes < FREE_LEAST_BYTES // 16
        yield Finding(
            area, "broken" if full else "warning", f"{it.free_bytes / 1e6:.0f} MB are free",
            "a full disk stops the collector: nothing is acknowledged until there is room",
            "Make room, or keep less: serve --keep-raw 7d.",
        )  # fmt: skip
    elif it.free_bytes >= 0:
        yield Finding(area, "ok", f"{it.free_bytes / 1e9:.1f} GB are free")
    if it.fsync_ms > FSYNC_SLOW_MS:
        yield Finding(area, "warning", f"an fsync takes {it.fsync_ms:.0f} ms",
                      "each batch of telemetry waits for one", "Use an SSD.")  # fmt: skip
    if it.kind == "sqlite" and it.journal != "wal":
        yield Finding(area, "warning", f"SQLite's journal is {it.journal}, not wal",
                      "reports and the collector block each other",
                      "Is it on a network file system? Put it on a local one.")  # fmt: skip


def _postgres(it: StoreFacts) -> Iterator[Finding]:
    area = "store"
    if it.kind != "postgresql":
        return
    if it.server < POSTGRES_OLDEST:
        yield Finding(area, "warning", f"PostgreSQL {it.server // 10_000} is no longer maintained",
                      "it is not tested with edge-fleet", "Take 15 or newer.")  # fmt: skip
    for name, safe in SAFE.items():
        if it.settings.get(name, safe) != safe:
            yield Finding(
                area, "broken", f"PostgreSQL's {name} is {it.settings[name]}",
                "a power cut destroys the database after records were acknowledged",
                f"Set {name} = {safe}.",
            )  # fmt: skip
    if it.settings.get("synchronous_commit", "on") == "off":
        yield Finding(area, "broken", "PostgreSQL's synchronous_commit is off",
                      "records acknowledged in the last second are lost in a power cut",
                      "Set synchronous_commit = on.")  # fmt: skip


def _gone(it: FleetFacts, now_ms: int) -> Iterator[Finding]:
    for ordinal, beat_ms in sorted(it.beats.items()):
        if 0 < beat_ms < now_ms - GONE_MS:
            days = (now_ms - beat_ms) / DAY_MS
            yield Finding(
                "fleet", "warning", f"collector {ordinal} left no sign of life for {days:.0f} days",
                "the broker keeps its session, and messages for it until it is full",
                f"Start it, or end its session: edge-fleet end-session --ordinal {ordinal}.",
            )  # fmt: skip


def _fleet(it: FleetFacts, now_ms: int) -> Iterator[Finding]:
    area = "fleet"
    newest = max(it.beats.values(), default=0)
    if now_ms - newest > BEAT_LATE_MS:
        yield Finding(area, "warning", "no collector is running", "telemetry waits at the broker,"
                      " as long as that keeps it", "Start `edge-fleet serve`.")  # fmt: skip
    else:
        yield Finding(area, "ok", f"fleet {it.fleet}: {it.devices} devices, collector running")
        yield from _gone(it, now_ms)
    if it.lag_s is not None and it.lag_s > LAG_LONG_S:
        yield Finding(area, "warning", f"telemetry comes {it.lag_s:.0f} s after it was counted",
                      "drift is seen as much later", "Does the collector keep up, and the links?"
                      )  # fmt: skip
    if it.dropped:
        yield Finding(area, "warning", f"{it.dropped} records are missing",
                      "devices had no room left while they were off line, or a broker lost some",
                      "edge-fleet status names devices and faults; see [telemetry] spool.",
                      )  # fmt: skip
    if it.pending:
        yield Finding(area, "warning", f"{it.pending} windows wait for a profile",
                      "their drift is not seen", "edge-fleet status names the bundles: publish"
                      " them, or edge-fleet fetch FILE.")  # fmt: skip
    if it.clocks:
        yield Finding("clock", "warning", f"clocks are off on {', '.join(it.clocks[:5])}"
                      + ("…" if len(it.clocks) > 5 else ""),
                      "times of their events and windows mislead", "Set up NTP there.")  # fmt: skip
    if it.twins:
        yield Finding(area, "broken", f"two agents share a name: {', '.join(it.twins[:5])}",
                      "they throw each other out and mix their counts",
                      "Enrol one of them under another name.")  # fmt: skip
    for name, ends_ms in sorted(it.tokens.items()):
        if ends_ms - now_ms < SOON_MS:
            yield _ending("tokens", f"token {name}", ends_ms, now_ms, soon=SOON_MS,
                          why="whoever uses it is then refused",
                          advice="edge-fleet api-tokens create")  # fmt: skip


def _http(it: HttpFacts, now_ms: int) -> Iterator[Finding]:
    if it.error:
        yield Finding("http", "broken", it.error, "dashboard, scripts and Prometheus see nothing",
                      "Start `edge-fleet api`, or serve --http.")  # fmt: skip
        return
    yield Finding("http", "ok", f"{it.url} answers")
    yield from _certificate("http", "its certificate", it.certificate_ms, now_ms)
    if it.ahead_ms is not None and abs(it.ahead_ms) > CLOCK_OFF_MS:
        yield _clock("the HTTP service's clock", it.ahead_ms)


def _machine(it: MachineFacts, now_ms: int) -> Iterator[Finding]:
    if it.synchronised is False:
        yield Finding("clock", "warning", "nothing keeps this machine's clock right",
                      "lags, expiries and ages are judged by it", "Start an NTP service: chrony"
                      " or systemd-timesyncd.")  # fmt: skip
    for name, ends_ms in sorted(it.certificates.items()):
        yield from _certificate("tls", name, ends_ms, now_ms)


def _certificate(area: str, what: str, ends_ms: int, now_ms: int) -> Iterator[Finding]:
    if ends_ms:
        yield _ending(area, what, ends_ms, now_ms, soon=SOON_MS,
                      why="who checks it then refuses the connection",
                      advice="Renew it: edge-pack broker-acl for a broker's.")  # fmt: skip


def _ending(
    area: str, what: str, ends_ms: int, now_ms: int, *, soon: int, why: str, advice: str
) -> Finding:
    days = (ends_ms - now_ms) / DAY_MS
    if ends_ms <= now_ms:
        return Finding(area, "broken", f"{what} expired {-days:.1f} days ago", why, advice)
    if ends_ms - now_ms < soon:
        return Finding(area, "warning", f"{what} expires in {days:.1f} days", why, advice)
    return Finding(area, "ok", f"{what}: {days:.0f} days left")


def _clock(what: str, ahead_ms: float) -> Finding:
    way = "ahead of" if ahead_ms > 0 else "behind"
    return Finding("clock", "warning", f"{what} is {abs(ahead_ms) / 1000:.0f} s {way} ours",
                   "one of the two is wrong, and lags with it", "Set up NTP on both.")  # fmt: skip
