"""When a trigger fires, and what its settings may say. Pure."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from edge_contract.errors import InputFault
from edge_fleet.triggers import conditions, retry
from edge_fleet.triggers import settings as trigger_settings
from edge_fleet.triggers.conditions import AlarmSeen, Facts, Loss, Past, decide
from edge_fleet.triggers.settings import When

NOW_MS = 10**12
DEVICE = AlarmSeen(1, "b", "device", "mean-up", "temperature")
FLEETWIDE = AlarmSeen(2, "b", "fleet", "missing", "level")


def facts(*alarms: AlarmSeen, rows: int = 1000, losses: tuple[Loss, ...] = ()) -> Facts:
    return Facts(rows, alarms, lambda: losses)


@pytest.mark.parametrize(
    ("when", "alarms", "fires"),
    [
        (When(), (), False),
        (When(), (DEVICE,), True),
        (When(alarms=2), (DEVICE,), False),
        (When(alarms=2), (DEVICE, FLEETWIDE), True),
        (When(levels=("fleet", "cohort")), (DEVICE,), False),
        (When(levels=("fleet", "cohort")), (DEVICE, FLEETWIDE), True),
        (When(kinds=("mean-*",)), (FLEETWIDE,), False),
        (When(kinds=("mean-*",)), (DEVICE,), True),
        (When(features=("lev*",)), (DEVICE,), False),
        (When(features=("lev*",)), (FLEETWIDE,), True),
    ],
)
def test_alarms_of_the_stated_kind_are_counted(
    when: When, alarms: tuple[AlarmSeen, ...], fires: bool
) -> None:
    verdict = decide(when, facts(*alarms), Past(), NOW_MS)
    assert verdict.fires is fires
    assert bool(verdict.alarms) is fires
    assert verdict.said


def test_an_alarm_is_grounds_once() -> None:
    past = Past(named=frozenset({1}))
    assert not decide(When(), facts(DEVICE), past, NOW_MS).fires
    assert decide(When(), facts(DEVICE, FLEETWIDE), past, NOW_MS).alarms == (2,)


@pytest.mark.parametrize(("low", "fires"), [(0.0299, False), (0.03, True), (None, False)], ids=str)
def test_a_loss_counts_at_the_near_end_of_its_interval(low: float | None, fires: bool) -> None:
    loss = Loss("labels", 0.2, low, None if low is None else 0.3)
    verdict = decide(When(alarms=0, loss=0.03), facts(losses=(loss,)), Past(), NOW_MS)
    assert verdict.fires is fires
    assert ("never grounds" in verdict.said[-1]) is (low is None)


def test_a_loss_by_a_method_that_was_not_asked_for_is_none() -> None:
    when = When(alarms=0, loss=0.03, loss_by=("labels",))
    verdict = decide(when, facts(losses=(Loss("score", 0.5, 0.4, 0.6),)), Past(), NOW_MS)
    assert not verdict.fires
    assert verdict.said == ("no estimate of accuracy by labels",)


@pytest.mark.parametrize("require", ["all", "any"])
@pytest.mark.parametrize("drifted", [True, False])
@pytest.mark.parametrize("lost", [True, False])
def test_both_or_one_of_them(require: str, drifted: bool, lost: bool) -> None:
    when = When(loss=0.03, require=require)  # type: ignore[arg-type]
    known = facts(*([DEVICE] if drifted else []), losses=(Loss("labels", 0.1, 0.05 * lost, 0.2),))
    wanted = (drifted and lost) if require == "all" else (drifted or lost)
    assert decide(when, known, Past(), NOW_MS).fires is wanted


def test_nothing_is_read_for_a_loss_that_could_not_fire() -> None:
    def never() -> tuple[Loss, ...]:
        raise AssertionError("a day of counts was read for nothing")

    quiet = Facts(1000, (), never)
    assert not decide(When(loss=0.03), quiet, Past(), NOW_MS).fires
    busy = Facts(1000, (DEVICE,), never, "pi-1 is in phase trial")
    assert not decide(When(loss=0.03), busy, Past(), NOW_MS).fires


def test_what_holds_a_trigger_back() -> None:
    when, known = When(rows=500, cooldown_s=60.0), facts(DEVICE)
    assert decide(when, known, Past(rows=500), NOW_MS).fires
    for past, said in (
        (Past(rows=501), "499 new rows, 500 are wanted"),
        (Past(last_ms=NOW_MS - 59_000), "cooldown for another 1 s"),
        (Past(given_up=1, given_up_ms=NOW_MS), "given up 1 times in a row, again in 1 s"),
        (Past(given_up=9, given_up_ms=NOW_MS - 59_000), "again in 1 s"),
        (Past(under_way="firing 3 is still being delivered"), "firing 3"),
    ):
        verdict = decide(when, known, past, NOW_MS)
        assert not verdict.fires
        assert said in verdict.said[-1]
    assert decide(when, known, Past(last_ms=NOW_MS - 60_000), NOW_MS).fires
    moving = replace(known, rollout="devices answer with 1.0 and 2.0: a rollout")
    assert not decide(when, moving, Past(), NOW_MS).fires
    during = When(rows=500, during_rollout=True)
    assert decide(during, moving, Past(), NOW_MS).fires


def test_patterns_are_of_the_shell() -> None:
    assert conditions.matches((), "anything")
    assert conditions.matches(("1.*", "2.0"), "1.7")
    assert not conditions.matches(("1.*",), "10")


# -- settings --------------------------------------------------------------------------------

COMMAND = 'command = { run = ["true"] }'


def test_settings_are_read_with_their_defaults() -> None:
    text = f"""every_s = 5
    [triggers.retrain]
    models = ["pump"]
    when = {{ alarms = 2, levels = ["fleet"], loss = 0.03, rows = 10 }}
    {COMMAND}
    [triggers.page]
    alertmanager = {{ url = "http://127.0.0.1:9093" }}
    """
    found = trigger_settings.read(text.encode())
    assert found.every_s == 5
    retrain, page = found.triggers["retrain"], found.triggers["page"]
    assert (retrain.kind, page.kind) == ("command", "alertmanager")
    assert retrain.when.cooldown_s == 86400 and retrain.when.during_rollout is False
    assert page.when.cooldown_s == 0 and page.when.during_rollout is True
    assert retrain.when.loss_by == ("labels", "score")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [triggers.NAME]"),
        ("[triggers.a]\n", "0 actions, expected one"),
        (f"[triggers.a]\n{COMMAND}\nmqtt = {{}}", "2 actions, expected one"),
        (f"[triggers.a]\n{COMMAND}\ncoldown = 1", "coldown"),
        (f"[triggers.a]\n{COMMAND}\nwhen = {{ alarms = -1 }}", "alarms"),
        (f"[triggers.a]\n{COMMAND}\nwhen = {{ alarms = 0 }}", "there is no condition"),
        (f"[triggers.a]\n{COMMAND}\nwhen = {{ loss = 0.1, loss_by = [] }}", "loss_by"),
        (f"[triggers.a]\n{COMMAND}\nwhen = {{ loss = 2.0 }}", "loss"),
        (f'[triggers.a]\n{COMMAND}\nwhen = {{ levels = ["planet"] }}', "planet"),
        ("[triggers.a]\ncommand = { run = [] }", "run"),
        ('[triggers.a]\nmqtt = { topic = "a/+/b" }', "is a filter"),
        ('[triggers.a]\nwebhook = { url = "http://x" }', "no secret_file"),
        ('[triggers.a]\nwebhook = { url = "ftp://x", secret_file = "f" }', "neither http"),
        (
            '[triggers.a]\nwebhook = { url = "http://x", secret_file = "f", '
            'secret_variable = "V" }',
            "only one of them",
        ),
        (
            '[triggers.a]\nwhen = { alarms = 0, loss = 0.1 }\nalertmanager = { url = "http://x" }',
            "needs alarms",
        ),
        ('[triggers."a b"]\ncommand = { run = ["true"] }', "trigger"),
        (f"every_s = 0\n[triggers.a]\n{COMMAND}", "every_s"),
        (f"often = 1\n[triggers.a]\n{COMMAND}", "often"),
        ("[triggers", "no TOML"),
    ],
)
def test_a_fault_of_the_settings_is_named(text: str, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        trigger_settings.read(text.encode())
    assert said in caught.value.what


def test_every_fault_is_named_at_once() -> None:
    text = "[triggers.a]\n[triggers.b]\ncommand = { run = 3 }"
    with pytest.raises(InputFault, match=r"triggers\.a: .*; triggers\.b: "):
        trigger_settings.read(text.encode())


# -- pauses ----------------------------------------------------------------------------------


def test_pauses_grow_to_an_hour_and_are_spread() -> None:
    longest = [retry.pause_s(attempt, 1.0) for attempt in range(1, 40)]
    assert longest[:4] == [1, 2, 4, 8]
    assert max(longest) == 3600
    assert [retry.pause_s(attempt, 0.0) for attempt in (1, 2)] == [0.5, 1]


def test_firings_that_were_given_up_come_again_at_growing_pauses_up_to_the_cooldown() -> None:
    assert [retry.again_s(times, 86_400) for times in (1, 2, 3, 17)] == [1, 2, 4, 65_536]
    assert {retry.again_s(times, 86_400) for times in (18, 500)} == {86_400}
    assert retry.again_s(500, 0) == 3600, "a trigger without a cooldown"
    assert retry.again_s(500, 366 * 86_400) == 366 * 86_400


def test_a_receivers_wish_is_kept_within_a_day() -> None:
    assert retry.pause_s(1, 1.0, 30.0) == 30
    assert retry.pause_s(10, 1.0, 0.0) == 512
    assert retry.pause_s(1, 1.0, 1e9) == 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("Sun, 09 Sep 2001 01:46:50 GMT", 10.0),
        ("Sun, 09 Sep 2001 01:46:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("9" * 400, None),
        ("Mon, 99 Foo 2001", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry.retry_after_s(text, 10**12) == seconds


def test_the_page_on_triggers_shows_settings_that_are_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "triggers.md").read_text()
    [text] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    found = trigger_settings.read(text.encode())
    kinds = [rule.kind for rule in found.triggers.values()]
    assert sorted(kinds) == ["alertmanager", "command", "mqtt", "webhook"]
    assert set(When.__struct_fields__) == set(tomllib.loads(text)["triggers"]["retrain"]["when"])
