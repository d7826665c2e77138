"""A strained machine: who hears of it, what rests, and that requests are answered as ever."""

from datetime import UTC
from pathlib import Path

import pytest

from edge_agent import show
from edge_agent.report import AgentStatus
from edge_agent.strain import Strain
from edge_agent.thermal import HOLD_S
from edge_contract import messages, wire
from edge_contract.messages import Reported

PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
PRESSURE = "proc/pressure/memory"


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_its_beginning_and_its_end_are_told_once_each(tmp_path) -> None:
    strain = Strain(tmp_path)
    assert strain.look(0.0, 1_000) is None
    put(tmp_path, PI, "4\n")
    told = strain.look(10.0, 11_000)
    assert told is not None
    assert (told.kind, told.detail) == ("strained", "throttled by the firmware")
    assert strain.look(20.0, 21_000) is None
    assert strain.resting
    assert (strain.said.since_ms, strain.said.times) == (11_000, 1)
    put(tmp_path, PI, "0\n")
    assert strain.look(25.0, 26_000) is None
    told = strain.look(20.0 + HOLD_S, 81_000)
    assert told is not None
    assert (told.kind, told.detail) == ("relieved", "after 70 s")
    assert not strain.resting
    assert strain.said.signs == ()


def test_want_of_memory_is_a_strain(tmp_path) -> None:
    strain = Strain(tmp_path)
    put(tmp_path, PRESSURE, "full avg10=12.40 avg60=0 avg300=0 total=1\n")
    told = strain.look(0.0, 1)
    assert told is not None
    assert told.detail == "memory is short: waited for it 12 % of the last 10 s"
    assert strain.said.stalled_percent == pytest.approx(12.4)


def test_it_is_reported_and_shown_and_an_older_report_is_still_read() -> None:
    said = messages.Strain(signs=("under-voltage",), since_ms=3_600_000, times=2)
    status = AgentStatus(device="pi1", fleet="f", channel="stable", running=True, strain=said)
    again = wire.decode_json(wire.encode_json(status), AgentStatus, size_max=10_000)
    assert again == status
    assert "strained    under-voltage (since 01:00:00 +0000)" in show.lines(status, UTC)
    hardware = messages.Hardware(
        machine="m", cpus=1, ram_bytes=1, system="s", python="3", onnxruntime="1"
    )
    report = Reported(boot=1, at_ms=1, agent="1", hardware=hardware, strain=said)
    assert messages.decode(messages.encode(report), Reported).strain == said
    older = messages.encode(report).replace(wire.encode_json(said), b"{}")
    assert messages.decode(older, Reported).strain == messages.Strain()


def test_metrics_say_it() -> None:
    pytest.importorskip("httptools")
    from edge_agent.doors import DoorCounts
    from edge_agent.doors.http import metrics
    from edge_agent.doors.http.families import families_of

    strain = messages.Strain(signs=("x",), times=3, temperature_c=81.5, stalled_percent=5.0)
    page = metrics.render(families_of(strain, DoorCounts(answered=7, late=2))).decode()
    assert "edge_agent_strained 1\n" in page
    assert "edge_agent_strained_total 3\n" in page
    assert "edge_agent_temperature_celsius 81.5\n" in page
    assert "edge_agent_memory_stalled_ratio 0.05\n" in page
    assert 'edge_agent_mqtt_requests_total{end="late"} 2\n' in page
    cool = metrics.render(families_of(messages.Strain(), DoorCounts())).decode()
    assert "edge_agent_strained 0\n" in cool
    assert "celsius" not in cool
