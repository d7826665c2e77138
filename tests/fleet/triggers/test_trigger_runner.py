"""From an alarm in the store to a delivery that is kept: over restarts, once, and under control."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy
from fleet_kit import FLEET, Packed, until
from trigger_kit import NOW_MS, Clock, count, learn, raised
from typer.testing import CliRunner, Result

from edge_contract import manifest, messages, trigger
from edge_contract.errors import MachineFault
from edge_fleet.cli import app
from edge_fleet.store.base import ReportSeen, StatusSeen
from edge_fleet.store.firings import Firing
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.triggers import facts
from edge_fleet.triggers import settings as trigger_settings
from edge_fleet.triggers.delivery import Delivered, Place
from edge_fleet.triggers.runner import LOCK_ORDINAL, TriggerRun, moved, running
from edge_fleet.triggers.settings import Settings


def settings(text: str) -> Settings:
    return trigger_settings.read(text.encode())


def hook(url: str, more: str = "") -> str:
    return (
        f'[triggers.retrain]\nwebhook = {{ url = "{url}", secret_file = "hook.secret",'
        f" attempts = 4 }}\n{more}\n"
    )


def run_of(store: Any, place: Place, text: str, chance: float = 1.0) -> TriggerRun:
    [(name, rule)] = settings(text).triggers.items()
    return TriggerRun(name, rule, store, place, lambda: chance)


def firings(store: SqlStore) -> list[Firing]:
    with store.reading() as tx:
        return tx.firings()


def report(store: SqlStore, device: str, version: str, phase: messages.Phase = "committed") -> None:
    """A device that lives says what it runs."""
    hardware = messages.Hardware(
        machine="aarch64", cpus=4, ram_bytes=1, system="x", python="3", onnxruntime="1"
    )
    model = messages.ModelReport(phase=phase, active=version, candidate="2.0")
    said = messages.Reported(
        boot=1, at_ms=NOW_MS, agent="x", hardware=hardware, models={"boiler": model}
    )
    with store.transaction() as tx:
        tx.status(StatusSeen(device, True, 1, "x", NOW_MS, False))
        tx.report(ReportSeen(device, messages.encode(said), NOW_MS, False))


@pytest.fixture
def clocked(place: Place, clock: Clock) -> tuple[Place, Clock]:
    return place, clock


def test_an_alarm_fires_once_with_its_evidence(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place, clock: Clock
) -> None:
    run = run_of(watched, place, hook(receiver.url, "k = 0\nwhen = { rows = 500 }"))
    assert run.step() == [] and not receiver.came
    number = raised(watched, packed)
    [done] = run.step()
    assert (done.state, done.attempts, done.detail) == ("done", 1, "HTTP 200: noted")
    [(_, headers, body)] = receiver.came
    found = trigger.decode(body)
    assert (found.key, found.key) == (done.key, headers["webhook-id"])
    assert (found.trigger, found.fleet, found.model, found.version) == (
        "retrain", FLEET, "boiler", "1.0",
    )  # fmt: skip
    assert found.bundle == packed.digest
    [alarm] = found.alarms
    assert (alarm.id, alarm.level, alarm.device, alarm.kind) == (
        number, "device", "pi-1", "mean-up",
    )  # fmt: skip
    assert alarm.cells == (trigger.CellShare(cell="20 to 21", before=0.1, after=0.5),)
    assert (found.rows, found.rows_new, found.windows, found.devices) == (500, 500, 1, 1)
    figures = {(f.method, f.figure) for f in found.quality}
    assert ("score", "accuracy") in figures and ("labels", "accuracy") in figures
    assert all(f.blind for f in found.quality)
    clock.pass_s(90_000)
    assert run.step() == [] and len(receiver.came) == 1, "an alarm is grounds once"
    assert [f.key for f in firings(watched)] == [done.key]


def test_another_alarm_waits_for_the_cooldown_and_for_new_rows(
    watched: SqlStore, packed: Packed, receiver: Any, clocked: tuple[Place, Clock],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    place, clock = clocked
    run = run_of(watched, place, hook(receiver.url, "when = { rows = 300, cooldown_s = 60 }"))
    raised(watched, packed)
    run.step()
    raised(watched, packed, monitor=1, feature="level")
    count(watched, packed, rng, seq=2)
    assert run.step() == []
    clock.pass_s(61)
    [second] = run.step()
    assert second.number == 2 and trigger.decode(second.evidence).rows_new == 500
    raised(watched, packed, monitor=2, feature="colour")
    clock.pass_s(61)
    assert run.step() == [], "no row came since"


def test_a_receiver_that_fails_is_tried_at_growing_pauses_then_given_up(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place, clock: Clock
) -> None:
    receiver.answers = [(500, {}), (429, {"Retry-After": "30"}), (500, {}), (500, {})]
    run = run_of(watched, place, hook(receiver.url))
    raised(watched, packed)
    run.step()
    for pause_s in (1, 30, 4):
        [waiting] = firings(watched)
        assert waiting.state == "waiting" and waiting.next_ms == clock.ms + 1000 * pause_s
        assert run.step() == [], "not before its time"
        clock.pass_s(pause_s)
        run.step()
    [given_up] = firings(watched)
    assert (given_up.state, given_up.attempts) == ("failed", 4)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.came}) == 1
    assert run.step() == [], "not at once"
    clock.pass_s(1)
    [again] = run.step()
    assert again.state == "done", "what was given up does not count as told"
    assert again.key != given_up.key


def test_firings_that_are_given_up_again_and_again_become_seldom(
    watched: SqlStore, packed: Packed, receiver: Any, clocked: tuple[Place, Clock]
) -> None:
    place, clock = clocked
    raised(watched, packed)
    receiver.answers = [(400, {})] * 100  # final: each firing is given up at once
    run = run_of(watched, place, hook(receiver.url, "when = { cooldown_s = 20 }"))
    began_ms = clock.ms
    for _ in range(120):
        run.step()
        clock.pass_s(1)
    times = [(f.at_ms - began_ms) // 1000 for f in reversed(firings(watched))]
    assert times == [0, 1, 3, 7, 15, 31, 51, 71, 91, 111], "1, 2, 4 ... and then the cooldown"


DAY_MS = 86_400_000


def test_firings_that_are_over_go_when_they_are_old(
    watched: SqlStore, packed: Packed, receiver: Any, clocked: tuple[Place, Clock]
) -> None:
    """An alarm a day; every second one is resolved."""
    place, clock = clocked
    run = run_of(watched, replace(place, keep_ms=2 * DAY_MS), hook(receiver.url))
    for day in range(6):
        number = raised(watched, packed, monitor=day, feature=f"feature {day}")
        assert [f.state for f in run.step()] == ["done"]
        if day % 2:
            with watched.transaction() as tx:
                tx.resolve([number], clock.ms, "")
        clock.pass_s(DAY_MS / 1000)
    assert [f.number for f in firings(watched)] == [6, 5, 4, 3, 1], "an open alarm is told once"
    assert run.step() == []


def test_what_was_given_up_goes_too(
    watched: SqlStore, packed: Packed, receiver: Any, clocked: tuple[Place, Clock]
) -> None:
    place, clock = clocked
    raised(watched, packed)
    receiver.answers = [(400, {})] * 100
    text = hook(receiver.url, "when = { cooldown_s = 10 }")
    run = run_of(watched, replace(place, keep_ms=60_000), text)
    for _ in range(60):
        run.step()
        clock.pass_s(10)
    assert [f.number for f in firings(watched)] == list(range(60, 53, -1))


@pytest.mark.parametrize("final", [True, False])
def test_what_an_attempt_makes_of_a_firing(final: bool) -> None:
    firing = Firing("k", "t", 1, "m", "1", "ab" * 32, (), 0, 0, "waiting", attempts=1)
    after = moved(firing, Delivered(False, "no", final=final), 3, 1000, 0.5)
    assert after.state == ("failed" if final else "waiting")
    assert after.attempts == 2
    assert after.next_ms == (0 if final else 1000 + 1500)


# -- restarts --------------------------------------------------------------------------------


class CutStore:
    """A store whose power goes at its k-th use."""

    def __init__(self, store: SqlStore, cut_at: int) -> None:
        self._store, self._left = store, cut_at

    def settings(self) -> dict[str, str]:
        return self._store.settings()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        self._use()
        with self._store.transaction() as tx:
            yield tx

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        self._use()
        with self._store.reading() as tx:
            yield tx

    def _use(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise MachineFault("power cut")


def test_wherever_it_is_cut_off_a_firing_is_neither_lost_nor_another(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place
) -> None:
    raised(watched, packed)
    text, cuts = hook(receiver.url), 0
    while True:
        try:
            run_of(CutStore(watched, cuts), place, text).step()
        except MachineFault:
            cuts += 1
        else:
            break
    assert cuts >= 4, "reading, keeping, reading, asking, keeping"
    assert len({headers["webhook-id"] for _, headers, _ in receiver.came}) == 1
    [done] = firings(watched)
    assert done.state == "done"


def test_an_attempt_that_a_stop_ends_does_not_count(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place
) -> None:
    raised(watched, packed)
    receiver.hold = lambda _: place.stop.set()
    run_of(watched, place, hook(receiver.url)).step()
    [waiting] = firings(watched)
    assert (waiting.state, waiting.attempts) == ("waiting", 0)


def test_one_process_a_store_delivers_and_another_takes_over(
    watched: SqlStore, db: str, place: Place, packed: Packed, receiver: Any
) -> None:
    found = settings(f"every_s = 1\n{hook(receiver.url)}")
    heard: list[str] = []
    stood: list[str] = []
    other = open_store(db, create=False)
    behind = replace(place, stop=threading.Event())
    with running(found, watched, place, heard.append):
        until(lambda: heard, "the first delivers")
        with running(found, other, behind, stood.append):
            until(lambda: stood, "the second stands by")
            assert "delivering triggers" in heard[0]
            assert "standing by" in stood[0]
            place.stop.set()
            until(lambda: len(stood) == 2, "the second takes over")
            raised(watched, packed)
            until(lambda: receiver.came, "it delivers")
    assert (len(heard), "delivering triggers" in stood[1]) == (1, True)
    other.close()


@pytest.mark.parametrize("any_db", ["postgresql"], indirect=True)
def test_who_lost_the_connection_that_holds_the_lock_takes_it_anew(
    any_db: str, place: Place
) -> None:
    """PostgreSQL was restarted: by now another one may deliver, so this one asks again."""
    heard: list[str] = []
    there = open_store(any_db, create=True)
    found = settings("[triggers.a]\ncommand = { run = ['true'] }")
    with running(found, there, place, heard.append):
        until(lambda: heard, "it delivers")
        with there.connection(reading=False) as admin:
            admin.execute(
                sqlalchemy.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                    " AND objid = :number AND database ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())"
                ),
                {"number": LOCK_ORDINAL},
            )
        until(lambda: len(heard) > 1, "it delivers again")
    there.close()


# -- conditions as they stand in the store ---------------------------------------------------


def test_a_rollout_holds_a_trigger_back(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place
) -> None:
    raised(watched, packed)
    rule = settings(hook(receiver.url)).triggers["retrain"]

    def said() -> str:
        [case] = facts.cases(watched, "retrain", rule, FLEET, NOW_MS)
        return "" if case.firing else case.verdict.said[-1]

    report(watched, "pi-1", "1.0")
    report(watched, "pi-2", "1.0", "trial")
    assert said() == "pi-2 is in phase trial of boiler 2.0"
    report(watched, "pi-2", "2.0")
    assert said() == "devices answer with boiler 1.0 and 2.0: a rollout"
    with watched.transaction() as tx:
        tx.status(StatusSeen("pi-1", False, 1, "x", NOW_MS, False))
    assert said() == "", "a device that is away holds nothing back"


def test_models_versions_and_fleets_are_selected(
    watched: SqlStore, packed: Packed, receiver: Any
) -> None:
    raised(watched, packed)
    for more, fires in (
        ('models = ["boil*"]\nversions = ["1.*"]\nfleets = ["test"]', True),
        ('models = ["pump"]', False),
        ('versions = ["2.*"]', False),
        ('fleets = ["plant"]', False),
    ):
        rule = settings(hook(receiver.url, more)).triggers["retrain"]
        found = facts.cases(watched, "retrain", rule, FLEET, NOW_MS)
        assert [case.verdict.fires for case in found] == ([True] if fires else [])


def test_an_alarm_that_a_group_explains_is_no_grounds(
    watched: SqlStore, packed: Packed, receiver: Any
) -> None:
    group = raised(watched, packed, device="(all devices)", scope="fleet")
    raised(watched, packed, parent=group)
    rule = settings(hook(receiver.url)).triggers["retrain"]
    [case] = facts.cases(watched, "retrain", rule, FLEET, NOW_MS)
    assert case.verdict.alarms == (group,)
    assert case.firing is not None
    assert [a.level for a in trigger.decode(case.firing.evidence).alarms] == ["fleet"]


def test_accuracy_lost_by_late_labels_fires(
    store: SqlStore, packed: Packed, receiver: Any, rng: np.random.Generator
) -> None:
    metric = manifest.Metric(name="accuracy", original=0.8, bundle=0.8, low=0.78, high=0.82)
    built = msgspec.structs.replace(manifest.decode(packed.manifest_bytes), metrics=(metric,))
    graded = replace(packed, manifest_bytes=manifest.encode(built))
    learn(store, graded)
    count(store, graded, rng)
    rule = settings(
        hook(receiver.url, 'when = { alarms = 0, loss = 0.1, loss_by = ["labels"] }')
    ).triggers["retrain"]

    def case() -> facts.Case:
        [found] = facts.cases(store, "retrain", rule, FLEET, NOW_MS)
        return found

    assert case().verdict.said == ("no estimate of accuracy by labels",)
    with store.transaction() as tx:
        tx.add_asides([labels_of(graded, right=600, wrong=400)])
    found = case()
    assert found.firing is not None, found.verdict
    evidence = trigger.decode(found.firing.evidence)
    assert evidence.built_accuracy == 0.8
    assert evidence.why[0].startswith("accuracy lost by labels: 0.2000 (0.1")


def test_each_models_loss_is_its_own(
    store: SqlStore, packed: Packed, receiver: Any, rng: np.random.Generator
) -> None:
    metric = manifest.Metric(name="accuracy", original=0.8, bundle=0.8, low=0.78, high=0.82)
    built = msgspec.structs.replace(manifest.decode(packed.manifest_bytes), metrics=(metric,))
    for seq, (name, wrong) in enumerate((("boiler", 100), ("pump", 400))):
        data = manifest.encode(msgspec.structs.replace(built, name=name))
        one = replace(packed, manifest_bytes=data)
        learn(store, one)
        count(store, one, rng, seq=2 * seq, model=name)
        with store.transaction() as tx:
            tx.add_asides([labels_of(one, right=1000 - wrong, wrong=wrong, seq=2 * seq + 1)])
    rule = settings(
        hook(receiver.url, 'when = { alarms = 0, loss = 0.1, loss_by = ["labels"] }')
    ).triggers["retrain"]
    found = facts.cases(store, "retrain", rule, FLEET, NOW_MS)
    assert [(case.version.model, case.verdict.fires) for case in found] == [
        ("boiler", False), ("pump", True),
    ]  # fmt: skip
    assert found[1].verdict.said[0].startswith("accuracy lost by labels: 0.2")


def labels_of(packed: Packed, *, right: int, wrong: int, seq: int = 100) -> Any:
    """A device's record of labels, all of one score."""
    from edge_contract import aside
    from edge_contract.profile import SCORE_BINS
    from edge_contract.telemetry import pack_counts
    from edge_fleet.store.base import AsideKind, AsideSeen

    counts = np.zeros((2, 2, SCORE_BINS), dtype=np.int64)
    counts[0, 1, -1], counts[1, 1, -1] = wrong, right
    made = aside.Labelled(
        device="pi-1", boot=1, seq=seq,
        model=manifest.decode(packed.manifest_bytes).name, version="1.0",
        bundle=bytes.fromhex(packed.digest), start_ms=NOW_MS, end_ms=NOW_MS, synchronised=True,
        kind="label", labels=2, bins=SCORE_BINS, unit=1.0, counts=pack_counts(counts.reshape(-1)),
    )  # fmt: skip
    return AsideSeen("pi-1", 1, seq, AsideKind.LABELLED, packed.digest, NOW_MS, aside.encode(made))


def test_a_dry_run_is_kept_and_sends_nothing(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place
) -> None:
    raised(watched, packed)
    run = run_of(watched, place, "[triggers.retrain]\ndry_run = true\n" + hook(receiver.url)[19:])
    assert run.step() == [] and run.step() == []
    [kept] = firings(watched)
    assert kept.state == "dry-run" and trigger.decode(kept.evidence).dry_run
    assert not receiver.came
    [told] = run_of(watched, place, hook(receiver.url)).step()
    assert told.state == "done" and len(receiver.came) == 1, "by a dry run nobody was told"
    assert not trigger.decode(told.evidence).dry_run
    assert run.step() == [] and len(firings(watched)) == 2


def test_alerts_last_until_their_alarms_are_resolved(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place, clock: Clock
) -> None:
    text = f'[triggers.page]\nalertmanager = {{ url = "{receiver.url}", resend_s = 60 }}'
    number = raised(watched, packed)
    run_of(watched, place, text).step()
    raised(watched, packed, monitor=1, feature="level")
    run = run_of(watched, place, text)
    [second] = run.step()
    assert second.number == 2, "a new alarm is told at once, beside the first"
    assert run.step() == []
    clock.pass_s(60)
    assert len(run.step()) == 2
    with watched.transaction() as tx:
        tx.resolve([number], clock.ms, "sensor replaced")
    clock.pass_s(60)
    first, second = run.step()
    assert (first.state, second.state) == ("done", "active")
    ends = {}
    for _, _, body in receiver.came:
        [alert] = json.loads(body)
        ends[alert["labels"]["feature"]] = alert["endsAt"]
    assert ends["temperature"] < ends["level"], "the resolved one ends now"


# -- commands --------------------------------------------------------------------------------


def edge_fleet(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def file(place: Place, receiver: Any) -> str:
    path = place.folder / "triggers.toml"
    path.write_text(hook(receiver.url))
    return str(path)


@pytest.fixture
def ready(place: Place, receiver: Any) -> tuple[Place, Any]:
    return place, receiver


def test_the_commands_say_what_would_happen_and_what_did(
    watched: SqlStore, packed: Packed, db: str, file: str, ready: tuple[Place, Any]
) -> None:
    place, receiver = ready
    assert (
        "retrain  webhook http://127.0.0.1"
        in edge_fleet("triggers", "check", "--triggers", file).output
    )
    at = ("--triggers", file, "--db", db)
    assert "no version has an open alarm" in edge_fleet("triggers", "list", *at).output
    assert edge_fleet("triggers", "dry-run", *at).exit_code == 1
    assert "no trigger has fired" in edge_fleet("triggers", "history", "--db", db).output
    number = raised(watched, packed)
    [case] = json.loads(edge_fleet("triggers", "list", "--json", *at).output)
    assert (case["trigger"], case["fires"], case["alarms"]) == ("retrain", True, [number])
    would = edge_fleet("triggers", "dry-run", *at)
    assert trigger.decode(would.output.encode()).alarms[0].id == number
    assert not receiver.came and not firings(watched)
    run_of(watched, place, hook(receiver.url)).step()
    [line] = json.loads(edge_fleet("triggers", "history", "--json", "--db", db).output)
    assert (line["state"], line["evidence"]["alarms"][0]["id"]) == ("done", number)
    assert "0 open alarms that were not told yet" in edge_fleet("triggers", "list", *at).output


def test_a_trigger_can_be_tested(file: str, receiver: Any) -> None:
    assert (
        "delivered: HTTP 200"
        in edge_fleet("triggers", "test", "retrain", "--triggers", file).output
    )
    [(_, _, body)] = receiver.came
    assert trigger.decode(body).dry_run
    receiver.answers = [(500, {})]
    told = edge_fleet("triggers", "test", "retrain", "--triggers", file)
    assert "not delivered: HTTP 500" in str(told.exception)
    unknown = edge_fleet("triggers", "test", "other", "--triggers", file)
    assert "there is no trigger 'other', there are retrain" in str(unknown.exception)


def test_secrets_and_folders_that_are_not_there_are_named_at_once(place: Place) -> None:
    path = place.folder / "triggers.toml"
    path.write_text(
        '[triggers.a]\nwebhook = { url = "http://h/", secret_file = "none" }\n'
        '[triggers.b]\ncommand = { run = ["true"], folder = "none" }\n'
    )
    said = str(edge_fleet("triggers", "check", "--triggers", str(path)).exception)
    assert "triggers.a: secret_file" in said and "triggers.b: folder" in said
