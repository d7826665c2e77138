"""Records with names and as CBOR: nothing is lost, and a person sees what was wrong."""

from __future__ import annotations

import json
from pathlib import Path

import cbor2
import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from edge_contract import manifest as manifests
from edge_contract import moments, telemetry
from edge_contract.errors import InputFault
from edge_contract.moments import Moments
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record, Resources
from edge_fleet import disclosure, readable
from edge_fleet.cli import app
from edge_fleet.collector import now_ms
from edge_fleet.store.base import EventSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

RESOURCES = Resources(12, 3, 61, 48, 9_000, 0x104)


def run(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, [*words, "--db", db])


def full(packed: Packed, rng: np.random.Generator, **changes: object) -> Record:
    """A record with every field, in the coding that agents write."""
    rows = draw(rng, 200)
    counts = packed.counts(rows)
    plain = record(packed, counts)
    seen = [
        Moments(float(rng.normal(monitor.mean, 1)), float(rng.uniform(0, 9)), 2)
        for monitor in (packed.profile.monitors[at] for at in moments.numbers(packed.profile))
    ]
    made = replace(
        plain,
        coding=telemetry.CODING_RESIDUALS,
        counts=Residuals(packed.profile).write(counts, plain.rows),
        moments=moments.write(packed.profile, counts, seen),
        refused=7, failed=2, errors=(1, 6, 0, 0, 0, 0, 2),
        quality=((9, 0), (5, 1), (3, 3)), resources=RESOURCES,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize("known", [True, False])
def test_a_record_comes_back_from_cbor(
    packed: Packed, rng: np.random.Generator, known: bool
) -> None:
    reference = Residuals(packed.profile) if known else None
    for each in (
        full(packed, rng),
        full(packed, rng, resources=None, moments=b"", quality=(), errors=(), refused=0),
        record(packed, packed.counts(draw(rng, 60))),
        full(packed, rng, coding=telemetry.CODING_NOISY, moments=b"", counts=telemetry.pack_noisy(
            packed.counts(draw(rng, 200)), 2.5)),
        full(packed, rng, errors=(*[0] * 30, 1)),
    ):  # fmt: skip
        data = readable.to_cbor(readable.readable(each, reference))
        (found,) = readable.from_cbor(data)
        assert readable.record_of(found, reference) == each
        assert telemetry.encode(readable.record_of(found, reference)) == telemetry.encode(each)


def test_the_map_is_deterministic_and_any_reader_reads_it(
    packed: Packed, rng: np.random.Generator
) -> None:
    one = full(packed, rng)
    found = readable.readable(one, Residuals(packed.profile))
    data = readable.to_cbor(found)
    assert data == readable.to_cbor(dict(reversed(found.items())))
    assert cbor2.loads(data) == found
    # RFC 8949, section 4.2.1: keys by the bytes of their encoding, shortest forms, by hand.
    assert readable.to_cbor({"bb": [1, None], "a": 1.5, "c": 500}) == bytes.fromhex(
        "a36161f93e0061631901f46262628201f6"
    )
    names = list(cbor2.loads(data))
    encoded = [cbor2.dumps(name) for name in names]
    assert encoded == sorted(encoded)
    assert found["errors"] == {"input": 1, "missing": 6, "not-finite": 2}
    assert found["quality"][0] == [9, ""]
    assert found["quality"][1] == [5, packed.profile.monitors[0].name]
    assert sum(found["counts"][packed.profile.monitors[0].name]) == one.rows


def test_what_is_no_record_is_refused(packed: Packed, rng: np.random.Generator) -> None:
    data = readable.to_cbor(readable.readable(full(packed, rng), None))
    for size in range(1, len(data), 7):
        with pytest.raises(InputFault):
            list(readable.from_cbor(data[:size]))
    for wrong in (cbor2.dumps([1, 2]), cbor2.dumps(7), b"\xff", b"\x9f" * 5_000):
        with pytest.raises(InputFault):
            list(readable.from_cbor(wrong))
    (found,) = readable.from_cbor(data)
    for name in found:
        with pytest.raises(InputFault):
            readable.record_of({k: v for k, v in found.items() if k != name}, None)
        with pytest.raises(InputFault):
            readable.record_of(found | {name: {"x": object()}}, None)


@pytest.fixture
def filled(store: SqlStore, packed: Packed, rng: np.random.Generator) -> list[Record]:
    """A store with a profile, three records of two devices, and an event."""
    made = [
        full(packed, rng, seq=1),
        full(packed, rng, seq=2),
        full(packed, rng, device="pi-2", quality=(), resources=None),
    ]
    entry = manifests.decode(packed.manifest_bytes).file("profile.json")
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(entry.sha256, packed.stored, 0)
        tx.add_windows([window_of(telemetry.encode(each), now_ms()) for each in made])
        for seq, kind in enumerate(("committed", "quality-fault")):
            detail = "stuck: temperature\x1b[31m" * (kind == "quality-fault")
            tx.add_events([EventSeen("pi-1", 1, seq, 5, kind, "boiler", "1.0", detail, now_ms())])
    return made


def test_a_person_sees_what_was_wrong(db: str, filled: list[Record]) -> None:
    shown = run("records", "show", "pi-1", db=db)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("stuck temperature") == 2
    assert "stale-clock" in shown.output
    assert "6 missing" in shown.output
    assert "CPU 12 %, 61 MiB, 48 C, disk 9000 MiB free, slowed (0x104)" in shown.output
    (newest,) = json.loads(run("records", "show", "pi-1", "--limit", "1", "--json", db=db).output)
    assert newest["seq"] == 2
    assert set(newest["moments"]) == {"temperature", "level"}
    nothing = run("records", "show", "pi-9", db=db)
    assert isinstance(nothing.exception, InputFault)


def test_a_time_that_no_calendar_holds_costs_no_table(
    db: str, store: SqlStore, filled: list[Record]
) -> None:
    late = replace(filled[0], seq=99, end_ms=2**53)
    with store.transaction() as tx:
        tx.add_windows([window_of(telemetry.encode(late), now_ms())])
    shown = run("records", "show", "pi-1", db=db)
    assert shown.exit_code == 0, shown.exception
    rows = shown.output.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["-", "2023-11-14", "2023-11-14"]
    assert "2023-11-14 22:14:20" in shown.output


def test_records_are_exported_and_read_back(
    db: str, filled: list[Record], packed: Packed, tmp_path: Path
) -> None:
    out = tmp_path / "day.cbor"
    assert run("records", "export", "--out", str(out), "--k", "0", db=db).exit_code == 0
    reference = Residuals(packed.profile)
    found = [readable.record_of(each, reference) for each in readable.from_cbor(out.read_bytes())]
    assert sorted(found, key=lambda each: (each.device, each.seq)) == filled
    one = run("records", "export", "--out", "-", "--k", "0", "--device", "pi-2", db=db)
    assert cbor2.loads(one.stdout_bytes)["device"] == "pi-2"


def test_records_for_others_say_no_figure_of_few_rows(
    db: str, filled: list[Record], store: SqlStore, packed: Packed, rng: np.random.Generator,
    *, tmp_path: Path,
) -> None:  # fmt: skip
    """Windows of 200 rows, 4 of them of an unseen colour, and one of 6 rows."""
    rows = draw(rng, 200)
    rows.colour[:4] = ["violet"] * 4
    counts = packed.counts(rows)
    made = [
        replace(record(packed, counts, seq=7), refused=14, errors=(11, 3)),
        record(packed, packed.counts(draw(rng, 6)), seq=8),
    ]
    unknown = replace(record(packed, counts, seq=9), bundle=bytes(32))
    with store.transaction() as tx:
        tx.add_windows([window_of(telemetry.encode(each), now_ms()) for each in (*made, unknown)])
    out = tmp_path / "out.cbor"
    result = run("records", "export", "--out", str(out), db=db)
    assert result.exit_code == 0, result.output
    found = {(one["device"], one["seq"]): one for one in readable.from_cbor(out.read_bytes())}
    assert set(found) == {("pi-1", 1), ("pi-1", 2), ("pi-2", 1), ("pi-1", 7)}
    assert all((one["moments"], one["quality"]) == ({}, []) for one in found.values())
    assert {one["refused"] for key, one in found.items() if key[1] != 7} == {0}, "7 of few"
    one = found["pi-1", 7]
    assert (one["rows"], one["refused"], one["errors"]) == (200, 14, {"input": 11})
    start = 0
    for monitor in packed.profile.monitors:
        own = counts[start : start + monitor.cells]
        start += monitor.cells
        assert one["counts"][monitor.name] == disclosure.safe_counts(monitor, own, 10).tolist()
        assert sum(one["counts"][monitor.name]) == own.sum()
    assert 4 not in one["counts"]["colour"][3:], "merged with a colour that more rows have"
    again = readable.record_of(one, Residuals(packed.profile))
    assert again.rows == 200, "a record still"


def test_events_are_listed_and_chosen(db: str, filled: list[Record]) -> None:
    every = run("events", db=db).output
    assert "committed" in every
    assert "stuck: temperature" in every
    assert "\x1b" not in every
    (only,) = json.loads(run("events", "--kind", "quality-fault", "--json", db=db).output)
    assert only["device"] == "pi-1"
    assert "no such event" in run("events", "--device", "pi-2", db=db).output


def test_records_are_found_in_either_store(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    made = [full(packed, rng, seq=seq) for seq in range(3)]
    with any_store.transaction() as tx:
        tx.add_windows([window_of(telemetry.encode(e), 100 + e.seq) for e in made])
    with any_store.reading() as tx:
        assert [each.seq for each in tx.records(device="pi-1")] == [2, 1, 0]
        assert [each.seq for each in tx.records(since_ms=102)] == [2]
        assert list(tx.records(device="pi-2")) == []
