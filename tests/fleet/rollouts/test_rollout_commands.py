"""What a person sees of rollouts: words, JSON, exit codes, and advice for each mistake."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from rollout_store import Fleet

from edge_fleet.cli import app
from edge_fleet.options import now_ms
from edge_fleet.store.sql import SqlStore

EVIL = "\x1b]0;owned\x07<script>\u202e"


@pytest.fixture
def fleet(store: SqlStore) -> Fleet:
    made = Fleet(store, 4)
    made.now_ms = now_ms()  # the commands have the machine's clock
    made.live([])
    return made


def rollout(*words: str, db: str) -> Result:
    unchecked = ["--unchecked"] if words[0] == "start" else []
    return CliRunner().invoke(app, ["rollout", *words, *unchecked, "--db", db])


def said(result: Result) -> str:
    return f"{result.output} {result.exception}"


def turn(fleet: Fleet, rounds: int = 1) -> None:
    for _ in range(rounds):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["start"], "the order names no model"),
        (["start", "pump"], "names no version"),
        (["start", "pump@2.0", "--select", "site="], "wrong at character 6"),
        (["start", "pump@2.0", "--select", "site=oslo"], "matches none of 4 devices"),
        (["start", "pump@2.0", "--waves", "5%,x"], "'x' is no wave"),
        (["start", "pump@2.0", "--bake", "long"], "is no duration"),
        (["start", "pump@2.0", "--policy", "pray"], "Invalid enum value 'pray'"),
        (["start", "pump@2.0", "--fleet", "other"], "belongs to fleet 'test', not 'other'"),
        (["pause"], "there is no rollout; known: none yet"),
        (["abort", "7"], "there is no rollout 7; known: none yet"),
    ],
)
def test_each_mistake_is_named_and_nothing_begins(
    words: list[str], fault: str, fleet: Fleet, db: str
) -> None:
    result = rollout(*words, db=db)
    assert result.exit_code != 0
    assert fault in said(result)
    assert fleet.rollouts() == []


def test_a_version_that_no_channel_names_asks_the_broker_first(fleet: Fleet, db: str) -> None:
    words = ["rollout", "start", "pump@2.0", "--broker", "mqtt://127.0.0.1:1", "--db", db]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert "127.0.0.1:1" in said(result)
    assert fleet.rollouts() == []


def test_a_rollout_is_begun_paused_resumed_and_rolled_back_by_hand(
    fleet: Fleet, db: str, tmp_path: Path
) -> None:
    file = tmp_path / "order.toml"
    file.write_text('version = "pump@2.0"\nwaves = "1,100%"\nselect = "hw=aarch64"\n')
    begun = rollout("start", "--file", str(file), "--bake", "5m", "--json", db=db)
    assert begun.exit_code == 0, said(begun)
    assert json.loads(begun.output)["selected"] == 4
    turn(fleet)
    assert "rollout 1: pump 2.0 is paused" in rollout("pause", db=db).output
    turn(fleet, 20)
    assert len(fleet.rollouts()[0].members) == 1
    assert rollout("resume", "1", db=db).exit_code == 0
    turn(fleet, 30)
    found = rollout("status", db=db)
    assert found.exit_code == 0
    assert "is finished, wave 2 of 2: all 2 waves hold" in found.output
    assert "4 selected, of them 4 installed" in found.output
    again = rollout("pause", db=db)
    assert again.exit_code != 0
    assert "it is finished, expected running" in said(again)
    assert rollout("rollback", db=db).exit_code == 0
    turn(fleet, 3)
    assert {d.models["pump"] for d in fleet.heard.values()} == {"stable"}
    assert "without one, or 0: all" in " ".join(rollout("status", "--help", db=db).output.split())
    ended = rollout("status", "1", "--json", db=db)
    assert (ended.exit_code, json.loads(ended.output)[0]["phase"]) == (1, "rolled-back")
    assert [note["phase"] for note in json.loads(ended.output)[0]["notes"]][:2] == [
        "running", "paused",
    ]  # fmt: skip


def test_what_devices_say_of_themselves_steers_no_terminal_and_no_selection(
    fleet: Fleet, db: str
) -> None:
    fleet.labels = {"site": EVIL, "device": "d99", "zone": "../" * 60}
    turn(fleet)
    for name in fleet.heard:
        fleet.tell(name)
    refused = rollout("start", "pump@2.0", "--select", "device=d99", db=db)
    assert "matches none of 4 devices" in said(refused), "its name is not its own to choose"
    begun = rollout("start", "pump@2.0", "--select", "site=*script*", db=db)
    assert begun.exit_code == 0, said(begun)
    turn(fleet, 3)
    for words in (["status"], ["status", "--json"]):
        assert "\x1b" not in rollout(*words, db=db).output


def test_one_waits_in_the_line_and_its_devices_go_back_to_their_channel(
    fleet: Fleet, db: str
) -> None:
    assert rollout("start", "pump@2.0", "--waves", "100%", db=db).exit_code == 0
    refused = rollout("start", "pump@3.0", db=db)
    assert refused.exit_code != 0
    assert "holds 4 of the 4 selected devices" in said(refused)
    assert "--queue" in said(refused)
    queued = rollout("start", "pump@3.0", "--waves", "100%", "--queue", db=db)
    assert "rollout 2: pump 3.0 is queued" in queued.output
    turn(fleet, 8)
    assert "rollout 2: pump 3.0 is finished" in rollout("status", "2", db=db).output
    early = rollout("release", "2", "--broker", "mqtt://127.0.0.1:1", db=db)
    assert early.exit_code != 0
    assert "127.0.0.1:1" in said(early)
    released = rollout("release", "2", "--unchecked", db=db)
    assert "rollout 2: pump 3.0 is released" in released.output, said(released)
    turn(fleet, 3)
    assert {d.models["pump"] for d in fleet.heard.values()} == {"stable"}


def test_the_example_is_an_order(fleet: Fleet, db: str) -> None:
    example = Path(__file__).parents[3] / "examples" / "rollout" / "pump-2.yaml"
    fleet.labels = {"site": "lyon"}
    fleet.live([])
    begun = rollout("start", "--file", str(example), "--json", db=db)
    assert begun.exit_code == 0, said(begun)
    found = json.loads(begun.output)
    assert (found["model"], found["selected"], found["waves"]) == ("pump", 4, 4)
    assert found["order"]["then"] == "channel"
