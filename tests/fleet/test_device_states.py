"""What devices are to follow beside what they do, found by questions and shown on one page."""

import json

import pytest
from fleet_kit import FLEET
from typer.testing import CliRunner, Result

from edge_contract import messages
from edge_contract.messages import Desired, Failure, Hardware, ModelReport, Reported, Room, Strain
from edge_fleet import following
from edge_fleet.cli import app
from edge_fleet.options import now_ms
from edge_fleet.store.base import EventSeen, Fault, ReportSeen, StatusSeen
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.sql import SqlStore
from edge_fleet.store.states import NamedRelease

DIGEST = "a" * 64
HOUR = 3_600_000
MACHINES = {"m": "aarch64", "n": "x86_64"}


def hardware(machine: str = "aarch64") -> Hardware:
    return Hardware(
        machine=machine, cpus=4, ram_bytes=4 * 10**9, system="Linux 6.1", python="3.11.2",
        onnxruntime="1.20.1",
    )  # fmt: skip


def wish(revision: int, word: str) -> Wish:
    desired = Desired(revision=revision, models={"pump": word})
    return Wish("pi", revision, 1, messages.encode(desired))


def told(revision: int = 0, **model: object) -> Reported:
    values = {"phase": "committed", "active": "1.0", "digest": DIGEST, **model}
    return Reported(
        boot=1, at_ms=1, agent="1.1", hardware=hardware(), revision=revision,
        models={"pump": ModelReport(**values)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "said", "follows", "why"),
    [
        (None, None, "unknown", "never reported"),
        (None, told(), "in-step", ""),
        (wish(3, "1.0"), told(3), "in-step", ""),
        (wish(3, "1.0"), told(2), "behind", "it has heard revision 2 of 3"),
        (wish(3, "1.0"), told(4), "behind", "revision 4, which is not ours: ours is 3"),
        (wish(3, "2.0"), told(3), "behind", "pump: it runs 1.0, 2.0 is wanted"),
        (wish(3, "2.0"), told(3, phase="fetching", candidate="2.0", progress=0.5), "behind",
         "pump: fetching 50 % 2.0"),
        (wish(3, "2.0"), told(3, phase="trial", active="2.0"), "behind", "pump: trial"),
        (wish(3, "2.0"), told(3, quarantined=("2.0",)), "refusing", "2.0 is in quarantine"),
        (wish(3, "2.0"), told(3, failure=Failure(version="2.0", digest=DIGEST, reason="hot")),
         "refusing", "pump: 2.0 failed: hot"),
        (wish(3, "2.0"), told(2, quarantined=("2.0",)), "refusing", "quarantine"),
        (None, told(failure=Failure(version="1.1", digest=DIGEST, reason="slow")), "refusing",
         "1.1 failed: slow"),
        (None, told(failure=Failure(version="0.9", digest=DIGEST, reason="slow")), "in-step", ""),
        (Wish("pi", 7, 1, b'{"schema": 9'), told(2), "behind", "revision 2 of 7"),
    ],
)  # fmt: skip
def test_the_difference_is_told_by_the_last_report(
    wanted: Wish | None, said: Reported | None, follows: str, why: str
) -> None:
    found = following.of(wanted, said)
    assert found.follows == follows
    assert why in found.said
    assert bool(found.said) == (follows != "in-step")


def test_a_version_is_known_by_its_bundle_and_a_factory_is_asked_elsewhere() -> None:
    named = following.Named([NamedRelease("pump", "1.0", DIGEST, "stable", 1)])
    good = ModelReport(phase="committed", active="1.0", digest=DIGEST)
    assert named.signed("pump", good) is True
    other = ModelReport(phase="committed", active="1.0", digest="b" * 64)
    assert named.signed("pump", other) is False, "the same version, another bundle"
    assert named.signed("valve", good) is False
    made_up = ModelReport(phase="committed", active="9.9", digest=DIGEST)
    assert named.signed("pump", made_up) is False
    factory = ModelReport(phase="committed", active="0.1", digest="c" * 64, factory="0.1")
    assert named.signed("pump", factory) is None
    assert following.Named(()).signed("pump", made_up) is None, "no channel was seen"


@pytest.fixture
def states(store: SqlStore) -> SqlStore:
    """m1 in lyon is fine, m2 has not heard, n1 refuses and is hot, n2 runs what nobody signed."""
    now = now_ms()
    store.claim(FLEET)
    store.put_settings({"collector-0": str(now), "window_s": "60", "false_alarms_per_month": "1"})
    with store.transaction() as tx:
        tx.add_releases([NamedRelease("pump", "1.0", DIGEST, "stable", now)])
        for name, labels in {
            "m1": {"site": "lyon"}, "m2": {"site": "lyon", "state": "offline", "alive": "no"},
            "n1": {"site": "oslo"}, "n2": {"site": "<b>oslo</b>"},
        }.items():  # fmt: skip
            refused = Failure(version="2.0", digest=DIGEST, reason="golden values differ")
            model = ModelReport(
                phase="committed", active="9.9" if name == "n2" else "1.0", digest=DIGEST,
                failure=refused if name == "n1" else None,
            )  # fmt: skip
            late = 2 * HOUR if name == "n2" else 0
            said = Reported(
                boot=2, at_ms=now - late - (HOUR if name == "m1" else 0),
                agent="1.10" if name == "m2" else "1.2", hardware=hardware(MACHINES[name[0]]),
                revision=0 if name == "m2" else 4, labels=labels, models={"pump": model},
                channel="stable", synchronised=name != "m1",
                room=Room(free_bytes=10**9, total_bytes=10**10, spool_max_bytes=10**6),
                strain=Strain(signs=("hot",) if name == "n1" else (), temperature_c=81.0),
            )  # fmt: skip
            tx.status(StatusSeen(name, True, 2, said.agent, now - late, retained=False))
            seen = ReportSeen(name, messages.encode(said), now - late, False, said.at_ms)
            tx.report(seen)
            word = "1.0" if name[0] == "m" else "2.0" if name == "n1" else "9.9"
            desired = Desired(revision=4, models={"pump": word})
            tx.put_wishes([Wish(name, 4, now, messages.encode(desired))])
        tx.add_events([EventSeen("n1", 2, 1, now, "refused", "pump", "2.0", "golden", now)])
        tx.add_faults([Fault("n1", "clock-ahead", "its clock", now)])
    return store


def run(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, [*words, "--db", db])


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ("site=lyon and hw=aarch64 and agent<1.9 and alive", ["m1"]),
        ("agent>=1.10", ["m2"]),
        ("follows=in-step", ["m1", "n2"]),
        ("follows in (behind, refusing)", ["m2", "n1"]),
        ("unsigned", ["n2"]),
        ("not last_seen<1h", ["n2"]),
        ("last_seen>1h and last_seen<3h", ["n2"]),
        ("strained and temperature>=80", ["n1"]),
        ("clock=free and clock_offset<-30m", ["m1"]),
        ("state=offline", []),
        ("label.state=offline", ["m2"]),
        ("device=m2 and alive", ["m2"]),
        ("version=9.* or label.site in (osl*)", ["n1", "n2"]),
        ("disk_free<2GB and channel=stable", ["m1", "m2", "n1", "n2"]),
        ("alarms>0 or alarmed", []),
        ("site=mars", []),
    ],
)
def test_a_question_finds_the_devices_that_it_means(
    where: str, meant: list[str], states: SqlStore, db: str
) -> None:
    result = run("devices", "--where", where, "--json", db=db)
    assert [one["device"] for one in json.loads(result.output)] == meant
    assert result.exit_code == (0 if meant else 1)
    table = run("devices", "--where", where, db=db)
    assert table.exit_code == result.exit_code
    assert ("none of 4 devices fits" in table.output) is (not meant)


def test_lines_are_sorted_limited_and_of_the_columns_that_are_wanted(
    states: SqlStore, db: str
) -> None:
    words = ["devices", "--sort", "follows", "--limit", "2", "--columns"]
    result = run(*words, "device,version,follows,label.site,clock", db=db)
    lines = result.output.splitlines()
    assert lines[0].split() == ["device", "version", "follows", "label.site", "clock"]
    assert lines[1].split()[:4] == ["n1", "1.0", "refusing", "oslo"]
    assert lines[2].split()[:4] == ["m2", "1.0", "behind", "lyon"], "it has not heard"
    assert lines[3] == "and 2 more"
    marked = run("devices", "--columns", "device,model", db=db).output
    assert "pump 9.9 (signed by nobody)" in marked
    assert "Linux 6.1" in run("devices", "--wide", db=db).output


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["devices", "--where", "site="], "wrong at character 6"),
        (["devices", "--where", "last_seen<tomorrow"], "expected a time such as 90s"),
        (["devices", "--sort", "luck"], "--sort 'luck' is none of"),
        (["devices", "--columns", "device,luck"], "there is no column 'luck'"),
        (["device", "nobody"], "there is no device 'nobody'"),
    ],
)
def test_a_mistake_is_named(words: list[str], fault: str, states: SqlStore, db: str) -> None:
    result = run(*words, db=db)
    assert result.exit_code != 0
    assert fault in f"{result.output} {result.exception}"


def test_one_page_has_everything_of_a_device(states: SqlStore, db: str) -> None:
    text = run("device", "n1", db=db).output
    for said in (
        "n1, online", "x86_64, Linux 6.1, 4 processors", "onnxruntime 1.20.1", "kept +0.0 s",
        "954 MiB free of 9537 MiB", "81 C, slowed: hot", "channel stable",
        "refusing, revision 4 of 4: pump: 2.0 failed: golden values differ",
        "fault     clock-ahead x 1", "refused",
    ):  # fmt: skip
        assert said in text, said
    found = json.loads(run("device", "m1", "--json", db=db).output)
    own = found["device"]["inventory"]
    assert own["clock_offset_s"] == pytest.approx(-3600, abs=1)
    assert (own["synchronised"], own["disk_free_bytes"]) == (False, 10**9)
    assert found["device"]["models"][0]["signed"] is True
    assert found["events"] == []


def test_what_the_broker_had_kept_says_nothing_of_a_clock(store: SqlStore) -> None:
    with store.transaction() as tx:
        tx.report(ReportSeen("pi", b"{}", 10 * HOUR, retained=True, at_ms=1))
        assert tx.clocks() == {}
        tx.report(ReportSeen("pi", b"{}", 10 * HOUR, retained=False, at_ms=11 * HOUR))
        tx.report(ReportSeen("pi", b"{}", 20 * HOUR, retained=True, at_ms=1))
        assert tx.clocks(["pi", "po"])["pi"].ahead_ms == HOUR


@pytest.mark.parametrize(
    ("words", "seqs"),
    [
        ([], [4, 3, 2, 1, 0, 1]),
        (["--since", "90m"], [1, 0, 1]),
        (["--until", "90m"], [4, 3, 2]),
        (["--since", "3h", "--until", "90m"], [2]),
        (["--since", "150m", "--limit", "2"], [1, 0]),
        (["--where", "site=oslo", "--kind", "refused"], [1]),
        (["--where", "site=mars"], []),
        (["--device", "m1", "--since", "1970-01-01"], [4, 3, 2, 1, 0]),
    ],
)
def test_events_of_a_time_and_of_some_devices(
    words: list[str], seqs: list[int], states: SqlStore, db: str
) -> None:
    now = now_ms() - 1_000
    with states.transaction() as tx:
        tx.add_events(
            [EventSeen("m1", 2, n, now, "update", "pump", "1.0", "", now - n * HOUR)
             for n in range(5)]
        )  # fmt: skip
    result = run("events", "--json", *words, db=db)
    assert result.exit_code == 0, result.exception
    assert sorted(e["seq"] for e in json.loads(result.output)) == sorted(seqs)
    wrong = run("events", "--since", "tomorrow", db=db)
    assert "--since 'tomorrow' is no time" in str(wrong.exception)
