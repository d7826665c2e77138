"""The doctor finds what is broken on real brokers and real databases, and nothing on sound ones."""

import datetime
import json
import os
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fleet_kit import until
from typer.testing import CliRunner

from edge_contract import broker_url
from edge_contract.access.rights import rights
from edge_contract.errors import InputFault
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import SENTINEL_FILE, Topics
from edge_fleet import cli
from edge_fleet.broker import (
    BrokerConfig,
    BrokerThread,
    MosquittoConfig,
    MosquittoProcess,
    Right,
    User,
    find_mosquitto,
)
from edge_fleet.collector import CollectorConfig
from edge_fleet.doctor import asking_broker, asking_store
from edge_fleet.doctor.checks import DAY_MS, Finding, examine
from edge_fleet.doctor.facts import BrokerFacts, Facts, FleetFacts, MachineFacts, StoreFacts
from edge_fleet.store import migrations, tables
from edge_fleet.store.base import Fault, StatusSeen
from edge_fleet.store.sql import SqlStore, open_store, reach

NOW = 1_790_000_000_000
TOPICS = Topics("plant")
SOUND = StoreFacts("sqlite:///x", "sqlite", version=migrations.VERSION, journal="wal")


def doctor(*words: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The command in this process: its exit code and its JSON."""
    done = CliRunner().invoke(
        cli.app, ["doctor", "--json", *words], env={"EDGE_FLEET_PASSWORD": "secret"}
    )
    return done.exit_code, json.loads(done.stdout or "{}")


def config(url: str, user: str = "", password: str = "") -> LinkConfig:
    import dataclasses

    parsed = dataclasses.replace(broker_url.parse(url), user=user, password=password)
    return LinkConfig(parsed, "edge-fleet-plant-doctor")


def judged(facts: BrokerFacts, fleet: FleetFacts | None = None) -> list[Finding]:
    found = examine(Facts(NOW, SOUND, MachineFacts(), facts, fleet), migrations.VERSION)
    return [each for each in found if each.state != "ok"]


def granted() -> tuple[Right, ...]:
    """What `edge-pack broker-acl` gives a fleet server."""
    return tuple(Right(each.topics, each.read, each.write) for each in rights("fleet", "", TOPICS))


def needs_mosquitto() -> None:
    if find_mosquitto() is None:
        pytest.skip("no mosquitto installed (Debian: apt-get install mosquitto)")


# -- a real broker -------------------------------------------------------------------------


def publish(url: str, messages: dict[str, bytes], **account: str) -> None:
    link = Link(config(url, **account))
    link.start(60)
    for topic, payload in messages.items():
        link.publish(topic, payload, retain=True).wait(60)
    link.stop()


def metadata(role: str, days: float, meta: dict[str, int] | None = None) -> bytes:
    ends = datetime.datetime.fromtimestamp(NOW / 1000 + days * 86_400, datetime.UTC)
    signed = {
        "_type": role, "version": 1, "expires": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "meta": {name: {"version": version} for name, version in (meta or {}).items()},
    }  # fmt: skip
    return json.dumps({"signed": signed, "signatures": []}).encode()


def test_sound_accounts_on_a_real_broker_have_nothing_wrong_with_them(start_broker) -> None:  # type: ignore[no-untyped-def]
    everything = (Right("#", read=True, write=True),)
    broker = start_broker(
        users={"plant.server": User("secret", granted()), "root": User("r", everything)}
    )
    publish(
        broker.url,
        {
            TOPICS.metadata(SENTINEL_FILE): b"{}",
            TOPICS.metadata("1.root.json"): metadata("root", 400),
            TOPICS.metadata("2.root.json"): metadata("root", 300),
            TOPICS.metadata("3.root.json"): b'{"absent":true}',
            TOPICS.metadata("timestamp.json"): metadata("timestamp", 3, {"snapshot.json": 7}),
            TOPICS.metadata("7.snapshot.json"): metadata("snapshot", 5, {"targets.json": 4}),
            TOPICS.metadata("4.targets.json"): metadata("targets", 90),
            TOPICS.status("pi-1"): b"{}",
        },
        user="root",
        password="r",
    )
    found = asking_broker.ask(config(broker.url, "plant.server", "secret"), TOPICS, ["pi-1"])
    assert (found.error, found.unreadable, found.unwritable, found.forgeable) == ("", (), (), ())
    assert (found.status, found.anonymous) == (1, False)
    days = {role: (ends - NOW) / DAY_MS for role, ends in found.expiries.items()}
    assert days == {"root": 300, "timestamp": 3, "snapshot": 5, "targets": 90}
    assert [each.what for each in judged(found, FleetFacts("plant", 1, 1, {"c": NOW}))] == [
        "TUF snapshot expires in 5.0 days"
    ]
    assert "secret" not in found.url


def test_the_newest_of_many_roots_is_the_one_that_counts() -> None:
    with BrokerThread(BrokerConfig()) as broker:
        roots = {TOPICS.metadata(f"{n}.root.json"): metadata("root", 100 + n) for n in range(1, 9)}
        absent = {TOPICS.metadata("9.root.json"): b'{"absent":true}'}
        publish(broker.url, {TOPICS.metadata(SENTINEL_FILE): b"{}", **roots, **absent})
        found = asking_broker.ask(config(broker.url), TOPICS, [])
    assert {role: (at - NOW) / DAY_MS for role, at in found.expiries.items()} == {"root": 108}


def test_missing_and_excessive_rights_are_named(start_broker) -> None:  # type: ignore[no-untyped-def]
    root = TOPICS.root
    broken = tuple(each for each in granted() if not each.pattern.endswith("/desired"))
    stolen = (*broken, Right(f"{root}/tuf/#", read=True, write=True))
    broker = start_broker(users={"plant.server": User("secret", stolen)})
    found = asking_broker.ask(config(broker.url, "plant.server", "secret"), TOPICS, [])
    assert found.unwritable == (TOPICS.desired(asking_broker.NOBODY),)
    assert found.forgeable == (TOPICS.metadata("edge-doctor.json"),)
    told = {each.what: each.state for each in judged(found) if each.area == "rights"}
    assert told == {
        f"may not write {root}/d/edge-doctor/desired": "broken",
        f"may write {root}/tuf/m/edge-doctor.json, which is the publisher's alone": "warning",
    }


def test_a_filter_that_the_broker_refuses_is_broken() -> None:
    """The embedded broker says so in its SUBACK; mosquitto grants every subscription."""
    root = TOPICS.root
    deaf = tuple(each for each in granted() if each.pattern != f"{root}/t/+/+")
    with BrokerThread(BrokerConfig(users={"plant.server": User("secret", deaf)})) as broker:
        found = asking_broker.ask(config(broker.url, "plant.server", "secret"), TOPICS, [])
    assert found.unreadable == (f"{root}/t/+/+",)
    assert any(each.state == "broken" for each in judged(found))


def test_an_open_broker_with_small_packets_that_lost_its_state() -> None:
    needs_mosquitto()
    with MosquittoProcess(MosquittoConfig(max_packet_bytes=2000)) as broker:
        publish(broker.url, {TOPICS.metadata(SENTINEL_FILE): b"{}", TOPICS.desired("pi-1"): b"{}"})
        found = asking_broker.ask(config(broker.url), TOPICS, ["pi-1", "pi-2"])
    assert found.offered["MaximumPacketSize"] == 2000
    assert (found.anonymous, found.desired, found.desired_missing) == (True, 1, ("pi-2",))
    told = [each.what for each in judged(found, FleetFacts("plant", 3, 3, {"c": NOW}))]
    for words in (
        "packets up to 2000 bytes",
        "whoever has no name",
        "for 1: pi-2",
        "store knows 3",
    ):
        assert any(words in each for each in told), (words, told)


def test_nothing_of_a_probe_is_left_or_believed(start_broker) -> None:  # type: ignore[no-untyped-def]
    broker = start_broker()
    heard: list[tuple[str, bool]] = []
    watch = Link(
        LinkConfig(broker_url.parse(broker.url), "watch"),
        on_message=lambda message: heard.append((message.topic, message.retain)),
    )
    watch.start(60)
    watch.subscribe(["#"]).wait(60)
    asking_broker.ask(config(broker.url), TOPICS, [])
    publish(broker.url, {"the/end": b"1"})
    until(lambda: any(topic == "the/end" for topic, _ in heard), "the end", 30)
    watch.stop()
    probes = [topic for topic, _ in heard if topic.startswith(TOPICS.root)]
    assert probes and all(asking_broker.NOBODY in each for each in probes)
    for topic in probes:
        assert not topic.endswith(("/status", "/reported", "/ev")) and "/t/" not in topic[12:18]
    kept: list[str] = []
    again = Link(
        LinkConfig(broker_url.parse(broker.url), "again"),
        on_message=lambda message: kept.append(message.topic),
    )
    again.start(60)
    again.subscribe(["#"]).wait(60)
    until(lambda: bool(kept), "what is retained", 30)
    again.stop()
    assert kept == ["the/end"]


def test_a_broker_that_is_not_there_and_one_that_refuses() -> None:
    gone = asking_broker.ask(config("mqtt://127.0.0.1:1"), TOPICS, [], wait_s=1)
    assert "no connection to mqtt://127.0.0.1:1" in gone.error
    with BrokerThread(BrokerConfig(users={"a": User("b")})) as broker:
        refused = asking_broker.ask(config(broker.url, "a", "wrong"), TOPICS, [])
    assert "refused the connection" in refused.error
    assert [each.state for each in judged(refused)] == ["broken"]


# -- certificates --------------------------------------------------------------------------


def certificate(folder: Path, days: float) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that ends in so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - datetime.timedelta(days=1000)).not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    return cert, secret


@pytest.mark.parametrize(("days", "state"), [(-3, "broken"), (5, "warning"), (300, "ok")])
def test_the_certificate_that_a_broker_shows_is_dated(
    tmp_path: Path, days: float, state: str
) -> None:
    needs_mosquitto()
    cert, key = certificate(tmp_path, days)
    extra = (f"certfile {cert}", f"keyfile {key}")
    with MosquittoProcess(MosquittoConfig(extra=extra)) as broker:
        url = broker.url.replace("mqtt:", "mqtts:")
        found = asking_broker.ask(config(url), TOPICS, [], wait_s=5)
    assert abs(found.certificate_ms / 1000 - cert_ends(cert)) < 2
    now = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
    sound = BrokerFacts(url, certificate_ms=found.certificate_ms)
    told = examine(Facts(now, SOUND, MachineFacts(), sound), migrations.VERSION)
    assert [each.state for each in told if "certificate" in each.what] == [state]
    assert found.error, "nobody trusts it: the reason is said"


def cert_ends(cert: Path) -> float:
    shown = x509.load_pem_x509_certificate(cert.read_bytes())
    return shown.not_valid_after_utc.timestamp()


def test_files_of_certificates_are_dated_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path, -1)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    found = asking_store.machine([str(cert), str(junk), ""])
    facts = Facts(int(cert_ends(cert) * 1000) + DAY_MS, SOUND, found)
    broken = [each.what for each in examine(facts, migrations.VERSION) if each.state == "broken"]
    assert any(f"{cert} expired 1.0 days ago" in each for each in broken)
    assert any("junk.pem (cannot be read)" in each for each in broken)


# -- stores --------------------------------------------------------------------------------


def store_findings(store: SqlStore, *, deep: bool = False) -> list[Finding]:
    seen = asking_store.ask(store, lambda: NOW, deep=deep)
    found = examine(Facts(NOW, seen, MachineFacts()), migrations.VERSION)
    return [each for each in found if each.state != "ok"]


def test_a_sound_store_of_each_kind(any_store: SqlStore) -> None:
    import time

    found = asking_store.ask(any_store, lambda: time.time_ns() // 1_000_000, deep=True)
    assert (found.error, found.version, found.damage) == ("", migrations.VERSION, "")
    assert found.missing_indexes == () and found.size_bytes > 0
    if found.kind == "sqlite":
        assert found.journal == "wal" and found.fsync_ms > 0 and found.free_bytes > 0
    else:
        assert found.server >= 130_000 and abs(found.ahead_ms or 0) < 60_000
        states = {each.what for each in store_findings(any_store)}
        assert "PostgreSQL's fsync is off" in states, "the tests' server runs so"


@pytest.mark.parametrize("version", [migrations.VERSION - 1, migrations.VERSION + 1])
def test_an_older_and_a_newer_schema(any_store: SqlStore, version: int) -> None:
    with any_store.connection(reading=False) as connection:
        connection.execute(sa.update(tables.schema_version).values(version=version))
    assert any(
        each.state == "broken" and f"schema {version}" in each.what
        for each in store_findings(any_store)
    )


def test_a_lost_index_a_damaged_page_and_a_full_disk(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/x.db", create=True)
    with store.connection(reading=False) as connection:
        connection.execute(sa.text("DROP INDEX alarms_open"))
        for number in range(300):
            row = {"name": f"n{number}", "value": "x" * 500}
            connection.execute(sa.insert(tables.settings).values(row))
    assert [each.what for each in store_findings(store) if "index" in each.what] == [
        "indexes are missing: alarms_open"
    ]
    store.close()
    path = tmp_path / "x.db"
    whole = bytearray(path.read_bytes())
    at = len(whole) - 3 * 4096
    whole[at : at + 2048] = os.urandom(2048)
    path.write_bytes(whole)
    hurt = reach(f"sqlite:///{path}", create=False)
    assert any(each.state == "broken" for each in store_findings(hurt, deep=True))
    hurt.close()
    for free, state in ((2**20, "broken"), (2**29, "warning"), (2**40, "ok")):
        facts = StoreFacts("x", "sqlite", version=5, journal="wal", free_bytes=free)
        told = examine(Facts(NOW, facts, MachineFacts()), 5)
        assert [each.state for each in told if each.area == "disk"] == [state]


def test_what_the_store_knows_of_the_fleet(store: SqlStore) -> None:
    store.claim("plant")
    store.put_settings({"collector-0": str(NOW - 3_600_000)})
    with store.transaction() as tx:
        tx.status(StatusSeen("pi-1", True, 1, "0.1", NOW, False))
        tx.add_faults(
            [
                Fault("pi-1", "clock-ahead", "its clock is 2.0 h ahead", NOW),
                Fault("pi-2", "duplicate-identity", "two", NOW),
                Fault("pi-3", "clock-ahead", "long ago", NOW - 30 * DAY_MS),
            ]
        )
    found = asking_store.fleet(store, NOW)
    assert (found.clocks, found.twins, found.statuses) == (("pi-1",), ("pi-2",), 1)
    facts = Facts(NOW, SOUND, MachineFacts(synchronised=False), fleet=found)
    told = {each.what: each.state for each in examine(facts, migrations.VERSION)}
    assert told["no collector is running"] == "warning"
    assert told["two agents share a name: pi-2"] == "broken"
    assert told["clocks are off on pi-1"] == "warning"
    assert told["nothing keeps this machine's clock right"] == "warning"


def test_every_finding_that_is_not_well_says_why_and_what_to_do() -> None:
    worst = Facts(
        NOW,
        StoreFacts(
            "x", "postgresql", version=5, damage="d", missing_indexes=("i",), server=90_000,
            settings={"fsync": "off", "synchronous_commit": "off"}, ahead_ms=9e9, free_bytes=0,
            fsync_ms=900,
        ),
        MachineFacts(False, {"a.pem": 1}),
        BrokerFacts(
            "mqtt://b", offered={
                "MaximumPacketSize": 9, "RetainAvailable": 0, "MaximumQoS": 0,
                "SharedSubscriptionAvailable": 0, "WildcardSubscriptionAvailable": 0,
                "SessionExpiryInterval": 5,
            },
            unreadable=("a",), unwritable=("b",), forgeable=("c",), anonymous=True,
            desired_missing=("d",), certificate_ms=1, expiries={"root": 1},
        ),
        FleetFacts("f", 9, 9, {}, 1e6, 3, 4, 5, ("c",), ("t",), {"tok": NOW + 1}),
    )  # fmt: skip
    found = [each for each in examine(worst, 5) if each.state != "ok"]
    assert len(found) >= 25
    assert all(each.why and each.advice for each in found)


def told_of_the_store(found: dict[str, list[dict[str, str]]]) -> str:
    return " ".join(each["advice"] for each in found["findings"] if each["area"] == "store")


# -- HTTP and the command ------------------------------------------------------------------


@pytest.fixture
def https(tmp_path: Path) -> Iterator[str]:
    """A server whose clock is an hour ahead and whose certificate ends soon."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: int | float | None = None) -> str:
            ahead = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            return ahead.strftime("%a, %d %b %Y %H:%M:%S GMT")

        def log_message(self, *_: object) -> None:
            pass

    cert, key = certificate(tmp_path, 3)
    server = HTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_command_says_all_of_it_as_json_and_by_its_exit_code(
    tmp_path: Path, https: str
) -> None:
    db = f"sqlite:///{tmp_path}/fleet.db"
    store = open_store(db, create=True)
    store.claim("plant")
    store.close()
    code, found = doctor("--db", db, "--broker", "none", "--http", https)
    assert code == 0
    told = [each["what"] for each in found["findings"] if each["state"] == "warning"]
    assert any("HTTP service's clock is 3" in each and "ahead of ours" in each for each in told)
    assert any("its certificate expires in" in each for each in told)
    assert doctor("--db", db, "--broker", "none", "--strict")[0] == 4
    code, found = doctor("--db", db, "--broker", "mqtt://u@127.0.0.1:1", "--wait-s", "1")
    assert code == 4 and found["broken"] == 1
    assert "secret" not in json.dumps(found)
    code, found = doctor("--db", f"sqlite:///{tmp_path}/none.db", "--broker", "none")
    assert code == 4 and "there is no database" in json.dumps(found)
    assert "Name it with --db" in told_of_the_store(found)
    (tmp_path / "rows.csv").write_text("a,b\n" * 400)
    code, found = doctor("--db", f"sqlite:///{tmp_path}/rows.csv", "--broker", "none")
    assert code == 4 and "not a database" in json.dumps(found)
    assert "Name the SQLite file of a fleet" in told_of_the_store(found)
    done = CliRunner().invoke(cli.app, ["doctor", "--db", db, "--wait-s", "-1"])
    assert isinstance(done.exception, InputFault)


def test_a_collector_that_was_taken_away_is_named_and_its_session_ended(tmp_path: Path) -> None:
    """Told by the broker: whoever comes under that name finds no session any more."""
    gone = FleetFacts("plant", beats={0: NOW, 2: NOW - 3 * DAY_MS, 3: 0})
    said = [one for one in examine(Facts(NOW, SOUND, MachineFacts(), fleet=gone), 5)
            if "sign of life" in one.what]  # fmt: skip
    assert [one.what for one in said] == ["collector 2 left no sign of life for 3 days"]
    assert "end-session --ordinal 2" in said[0].advice
    db = f"sqlite:///{tmp_path}/fleet.db"
    store = open_store(db, create=True)
    store.claim("plant")
    with BrokerThread() as broker:
        store.put_settings({"broker": broker.url, "collector-2": str(NOW)})
        durable = CollectorConfig(broker_url.parse(broker.url), "plant", ordinal=2).link(
            durable=True
        )
        found: list[bool] = []

        def come() -> None:
            link = Link(durable, on_up=found.append)
            link.start(60)
            until(lambda: found, "it is up")
            link.stop()

        come()
        words = ["end-session", "--ordinal", "2", "--db", db]
        with store.lock(2):
            refused = CliRunner().invoke(cli.app, words)
            assert isinstance(refused.exception, InputFault)
        come()
        ended = CliRunner().invoke(cli.app, words)
        assert (ended.exit_code, "edge-fleet-plant-2" in ended.stdout) == (0, True)
        come()
    assert found == [False, True, False]
    assert store.settings()["collector-2"] == "0"
    store.close()
