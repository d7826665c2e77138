"""Sparkplug B: what the real protobuf library writes is read back; hostile bytes are refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparkplug_pb import PayloadMessage, encode

from edge_agent.bindings import sparkplug
from edge_agent.bindings.sparkplug import Names, address, metrics
from edge_contract.errors import InputFault


def test_every_kind_of_value_is_read_as_protobuf_wrote_it() -> None:
    found = metrics(
        encode(
            {"name": "a", "datatype": 3, "int_value": (1 << 32) - 7},
            {"name": "b", "datatype": 4, "long_value": (1 << 64) - 7},
            {"name": "c", "datatype": 8, "long_value": 1 << 40},
            {"name": "d", "datatype": 9, "float_value": 0.5},
            {"name": "e", "datatype": 10, "double_value": -1e300},
            {"name": "f", "datatype": 11, "boolean_value": True},
            {"name": "g", "datatype": 12, "string_value": "läuft"},
            {"name": "h", "datatype": 1, "int_value": 255},
            {"name": "i", "datatype": 2, "int_value": (1 << 32) - 2},
            {"name": "j", "datatype": 9, "is_null": True},
            {"name": "k", "datatype": 17, "bytes_value": b"\0\1"},
            {"name": "l", "datatype": 10, "double_value": 2.0, "is_historical": True,
             "timestamp": 5},
        )
    )  # fmt: skip
    assert [metric.value for metric in found] == [
        -7.0, -7.0, float(1 << 40), 0.5, -1e300, True, "läuft", -1.0, -2.0, None, None, 2.0,
    ]  # fmt: skip
    assert [found[0].stamp_ms, found[-1].stamp_ms] == [1_700_000_000_000, 5]
    assert [found[0].historical, found[-1].historical] == [False, True]


@given(
    st.lists(
        st.tuples(
            st.text(max_size=20),
            st.floats(allow_nan=False),
            st.integers(0, 2**64 - 1),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_any_payload_of_the_real_library_is_read_back(
    rows: list[tuple[str, float, int, bool]],
) -> None:
    payload = encode(
        *(
            {"name": name, "alias": alias, "datatype": 10, "double_value": value,
             "is_transient": flag}
            for name, value, alias, flag in rows
        )
    )  # fmt: skip
    assert [(m.name, m.value, m.alias) for m in metrics(payload)] == [
        (name, value, alias) for name, value, alias, _ in rows
    ]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_an_input_fault(data: bytes) -> None:
    try:
        metrics(data)
    except InputFault:
        return


def test_a_payload_cut_off_anywhere_or_with_a_flipped_byte_never_breaks_the_decoder() -> None:
    whole = encode(
        {"name": "t", "datatype": 10, "double_value": 1.5},
        {"name": "s", "datatype": 12, "string_value": "on"},
    )
    for size in range(len(whole)):
        try:
            metrics(whole[:size])
        except InputFault:
            continue
    rng = random.Random(4)
    for _ in range(2000):
        spoilt = bytearray(whole)
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        try:
            metrics(bytes(spoilt))
        except InputFault:
            continue


def test_aliases_are_learned_from_births_and_their_types_with_them() -> None:
    names = Names({"speed", "temp"})
    birth, data = address("spBv1.0/g/DBIRTH/n/d"), address("spBv1.0/g/DDATA/n/d")
    assert birth is not None and data is not None
    unknown, missing = names.read(data, encode({"alias": 7, "double_value": 1.0}))
    assert (unknown, missing) == ([], True)
    names.read(
        birth,
        encode(
            {"name": "speed", "alias": 7, "datatype": 3, "int_value": 1},
            {"name": "noise", "alias": 8, "datatype": 3, "int_value": 1},
        ),
    )
    found, missing = names.read(
        data, encode({"alias": 7, "int_value": (1 << 32) - 5}, {"alias": 8, "int_value": 2})
    )
    assert not missing
    assert [(metric.name, metric.value) for metric in found] == [("speed", -5.0)]


def test_a_new_birth_of_the_node_ends_the_aliases_of_its_devices() -> None:
    names = Names({"speed"})
    where = {
        kind: address(f"spBv1.0/g/{kind}/n{'/d' if kind[0] == 'D' else ''}")
        for kind in ("NBIRTH", "DBIRTH", "DDATA")
    }
    assert all(where.values())
    names.read(where["DBIRTH"], encode({"name": "speed", "alias": 7, "datatype": 10}))  # type: ignore[arg-type]
    names.read(where["NBIRTH"], encode({"name": "bdSeq", "datatype": 8, "long_value": 1}))  # type: ignore[arg-type]
    found, missing = names.read(where["DDATA"], encode({"alias": 7, "double_value": 2.0}))  # type: ignore[arg-type]
    assert (found, missing) == ([], True)


def test_memory_for_nodes_is_bounded() -> None:
    names = Names({"speed"})
    for i in range(sparkplug.NODES_MAX + 50):
        where = address(f"spBv1.0/g/NBIRTH/n{i}")
        assert where is not None
        names.read(where, encode({"name": "speed", "alias": 1, "datatype": 10}))
    assert len(names._aliases) == sparkplug.NODES_MAX == len(names._born)


@pytest.mark.parametrize(
    "topic", ["spBv1.0/g/NCMD/n", "spBv1.0/g/NDATA", "spBv1.0/STATE/host", "x/g/NDATA/n", ""]
)
def test_other_topics_are_no_data(topic: str) -> None:
    assert address(topic) is None


def test_the_command_for_a_rebirth_is_what_protobuf_reads_back() -> None:
    message = PayloadMessage()
    message.ParseFromString(sparkplug.rebirth(1_700_000_000_123))
    (metric,) = message.metrics
    assert message.timestamp == 1_700_000_000_123
    assert (metric.name, metric.datatype, metric.boolean_value) == (
        "Node Control/Rebirth", 11, True,
    )  # fmt: skip


def test_memory_for_what_one_node_announces_is_bounded() -> None:
    """Devices and aliases are what any sender makes up."""
    names = Names({"speed"})
    birth = [{"name": "speed", "alias": i, "datatype": 10} for i in range(sparkplug.ANNOUNCED_MAX)]
    for i in range(sparkplug.ANNOUNCED_MAX + 50):
        where = address(f"spBv1.0/g/DBIRTH/n/d{i}")
        assert where is not None
        names.read(where, encode({"name": "speed", "alias": i, "datatype": 10}))
    for kept in (names._born, names._aliases, names._types):
        assert len(kept["g", "n"]) <= sparkplug.ANNOUNCED_MAX
    where = address("spBv1.0/g/DBIRTH/n/many")
    assert where is not None
    names.read(where, encode(*birth))
    names.read(where, encode(*({**each, "alias": each["alias"] + 10**6} for each in birth)))
    assert len(names._aliases["g", "n"]) <= 2 * sparkplug.ANNOUNCED_MAX
    found, missing = names.read(
        where._replace(kind="DDATA"), encode({"alias": 10**6, "double_value": 2.0})
    )
    assert not missing
    assert [metric.value for metric in found] == [2.0]
