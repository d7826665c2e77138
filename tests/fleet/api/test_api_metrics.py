"""What Prometheus reads, the rules on it and the dashboard: one set of names."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from api_kit import EVIL, Client
from fleet_kit import FLEET as FLEET_NAME
from prometheus_client.parser import text_string_to_metric_families

from edge_contract import messages
from edge_contract.topics import Topics
from edge_fleet.api import metrics, rollout_figures
from edge_fleet.options import now_ms
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts import words
from edge_fleet.rollouts.runner import RolloutRun
from edge_fleet.rollouts.state import Phase
from edge_fleet.store.base import ReportSeen
from edge_fleet.store.sql import SqlStore

FLEET = Path(__file__).parents[3] / "fleet"
ALERTS = FLEET / "prometheus" / "alerts.yml"
DASHBOARD = FLEET / "grafana" / "fleet.json"
NAME = re.compile(r"\bedge_fleet_[a-z_]+")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def names(text: str) -> set[str]:
    return {name for name, _ in samples(text)}


def test_the_figures_are_those_of_the_store(client: Client) -> None:
    viewer = client("viewer")
    found = samples(viewer.get("/metrics").text)
    status = viewer.get("/api/v1/status").json()
    for state in ("online", "silent", "offline"):
        assert found["edge_fleet_devices", (("state", state),)] == status[state]
    assert found["edge_fleet_windows_total", ()] == status["windows"] == 30
    assert found["edge_fleet_collector_up", ()] == 1
    opened = sum(v for (name, _), v in found.items() if name == "edge_fleet_alarms_open")
    assert opened == status["open_alarms"] >= 1
    running = (("model", "boiler"), ("state", "offline"), ("version", "1.4"))
    assert found["edge_fleet_devices_running", running] == 1


def test_versions_that_devices_make_up_are_escaped_and_bounded(
    client: Client, filled: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "VERSIONS_MAX", 8)
    hardware = messages.Hardware(
        machine="", cpus=1, ram_bytes=1, system="", python="", onnxruntime=""
    )
    hostile = [f'{n}"}} 1\nup 0 {EVIL}' for n in range(20)]
    models = {
        f"m{n}": messages.ModelReport(phase="committed", active=each)
        for n, each in enumerate(hostile)
    }
    report = messages.Reported(
        boot=1, at_ms=1, agent="", hardware=hardware, labels={}, models=models
    )
    with filled.transaction() as tx:
        tx.report(ReportSeen("pi-0", messages.encode(report), now_ms(), retained=False))
    found = samples(client("viewer").get("/metrics").text)
    running = {labels: v for (name, labels), v in found.items() if name.endswith("_running")}
    assert len(running) == 9
    assert running[("model", "other"), ("state", "online"), ("version", "other")] == 17
    assert sum(running.values()) == 25
    assert not any(name == "up" for name, _ in found)


def test_rollouts_are_told_by_phase_wave_and_what_became_of_their_devices(
    client: Client, filled: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered(filled, "device=pi-1")
    run = RolloutRun(filled, Topics(FLEET_NAME), now_ms)
    run.step()
    one = (("model", "boiler"), ("rollout", "1"), ("version", "1.1"))
    found = samples(client("viewer").get("/metrics").text)
    assert found["edge_fleet_rollout_wave", one] == 1
    assert found["edge_fleet_rollout_waves", one] == 2
    phases = {
        dict(labels)["phase"]: value
        for (name, labels), value in found.items()
        if name == "edge_fleet_rollout_phase"
    }
    assert {name for name, value in phases.items() if value} == {"running"}
    assert len(phases) == len(get_args(Phase)), "one that a rollout leaves falls to 0"
    devices = {
        dict(labels)["state"]: value
        for (name, labels), value in found.items()
        if name == "edge_fleet_rollout_devices"
    }
    assert {name: value for name, value in devices.items() if value} == {"asked": 1}
    ordered(filled, "device=pi-3")
    monkeypatch.setattr(rollout_figures, "ROLLOUTS_MAX", 1)
    told = samples(client("viewer").get("/metrics").text)
    assert {dict(labels)["rollout"] for name, labels in told if "rollout" in name} == {"2"}


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def ordered(store: SqlStore, select: str = "") -> None:
    made = orders.made(
        fleet=FLEET_NAME, model="boiler", version="1.1", waves=orders.waves("1,100%"),
        select=select,
    )  # fmt: skip
    with store.transaction() as tx:
        words.begin(tx, made, "ann", now_ms())


def test_rules_and_panels_use_figures_that_are_there(client: Client, filled: SqlStore) -> None:
    ordered(filled)
    told = names(client("viewer").get("/metrics").text)
    asked = {name for _, each in expressions() for name in NAME.findall(each)}
    assert asked
    assert asked <= told, asked - told
    unused = told - asked - {"edge_fleet_monitors"}
    assert not unused, "a figure that nobody looks at"


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${source}"
    assert [each["name"] for each in board["templating"]["list"]] == ["source"]


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no promtool: CI checks the rules with it")
        pytest.skip("no promtool installed (Debian: apt-get install prometheus)")
    return found


def test_promtool_accepts_rules_and_settings(promtool: str) -> None:
    for what, file in (("rules", ALERTS), ("config", ALERTS.with_name("prometheus.yml"))):
        flags = ["--syntax-only"] if what == "config" else []
        command = [promtool, "check", what, *flags, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_every_expression_and_the_figures_themselves(
    promtool: str, client: Client, tmp_path: Path
) -> None:
    rules = [{"record": f"check:{n}", "expr": each} for n, (_, each) in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = client("viewer").get("/metrics").text
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


FIRES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'edge_fleet_devices{{state="offline"}}'
        values: '{offline}x90'
      - series: 'edge_fleet_devices{{state="online"}}'
        values: '70x90'
      - series: 'edge_fleet_devices_following{{follows="refusing"}}'
        values: '{refusing}x90'
      - series: 'edge_fleet_collector_up'
        values: '{collector}x90'
      - series: 'edge_fleet_last_heard_timestamp_seconds'
        values: '{heard}x90'
      - series: 'edge_fleet_window_seconds'
        values: '300x90'
      - series: 'edge_fleet_rollout_phase{{rollout="3",phase="{phase}"}}'
        values: '1x90'
      - series: 'edge_fleet_rollout_phase{{rollout="3",phase="finished"}}'
        values: '0x90'
      - series: 'edge_fleet_rollout_changed_timestamp_seconds{{rollout="3"}}'
        values: '60x90'
      - series: 'edge_fleet_rollout_baking{{rollout="3"}}'
        values: '0x90'
      - series: 'edge_fleet_rollout_wave_began_timestamp_seconds{{rollout="3"}}'
        values: '{began}x90'
      - series: 'edge_fleet_rollout_devices{{rollout="3",state="silent"}}'
        values: '{silent}x90'
      - series: 'edge_fleet_rollout_devices{{rollout="3",state="installed"}}'
        values: '7x90'
    promql_expr_test:
      - expr: count(ALERTS{{alertstate="firing"}}) by (alertname)
        eval_time: 85m
        exp_samples: [{firing}]
"""


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("phase", ["running", "halted"])
def test_rules_fire_where_they_should_and_nowhere_else(
    promtool: str, tmp_path: Path, bad: bool, phase: str
) -> None:
    rollout = ["RolloutDevicesFail", "RolloutStopped" if phase == "halted" else "RolloutStuck"]
    phase = phase if bad else "finished"
    expected = ["CollectorDown", "DevicesRefuse", "ManyOffline", "NothingHeard", *rollout]
    expected = expected if bad else []
    firing = ", ".join(
        f"{{labels: '{{alertname=\"EdgeFleet{name}\"}}', value: 1}}" for name in expected
    )
    file = tmp_path / "test.yml"
    file.write_text(
        FIRES.format(
            rules=ALERTS, firing=firing, offline=30 if bad else 3, collector=0 if bad else 1,
            heard=60 if bad else 5000, phase=phase, silent=2 if bad else 0,
            began=-90_000 if bad else 60, refusing=1 if bad else 0,
        )
    )  # fmt: skip
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
