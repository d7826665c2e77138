"""Whatever comes in over the wire gets an answer that says why, and disturbs nothing else.

``EDGE_FUZZ_EXAMPLES=20000 pytest tests/agent/http/test_http_fuzz.py`` looks longer.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("EDGE_FUZZ_EXAMPLES", "60"))
SEED = int(os.environ.get("EDGE_FUZZ_SEED", "20261121"))
GOOD = json.dumps({"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}).encode()
REFUSED = {400, 403, 404, 405, 408, 411, 413, 414, 415, 431}
pytestmark = pytest.mark.slow

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=12)
    | st.sampled_from(["X", "temp", "hum", "site", "paris", "1.5", "nan", "\ud800", "\0"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
sizes = st.sampled_from([0, 1, 2, 4, 5, -1, 2**31, 2**63, 2**64, 1.5, "4", None, True])
names = st.sampled_from(["X", "Y", "temp", "hum", "site", ""]) | values
kinds = (
    st.sampled_from(["FP32", "FP64", "FP16", "INT64", "UINT8", "BOOL", "BYTES", "fp32"]) | values
)
tensors = st.fixed_dictionaries(
    {"name": names, "shape": st.lists(sizes, max_size=4) | values, "datatype": kinds},
    optional={
        "data": st.lists(scalars, max_size=8) | values,
        "parameters": st.dictionaries(st.just("binary_data_size"), sizes) | values,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | values},
    optional={"id": scalars, "outputs": values, "parameters": values},
)
rows = (
    st.dictionaries(st.sampled_from(["temp", "hum", "rpm", "volt", "site", "more"]), values)
    | st.fixed_dictionaries({"rows": values})
    | st.fixed_dictionaries({"tensors": values})
    | values
)
paths = st.sampled_from(
    ["/predict/pump", "/predict/mixed", "/v2/models/pump/infer", "/v2/models/mixed/infer",
     "/v2/models/pump/versions/1.0/infer", "/feedback/pump", "/v2/repository/index"]
)  # fmt: skip


def fuzzed(check: Callable[..., None], **drawn: Any) -> None:
    """Run ``check`` with what is drawn; the seed stands in the output."""
    print("seed", SEED)
    suppressed = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    wrapped = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=suppressed
    )(seed(SEED)(given(**drawn)(check)))
    wrapped()


def packed(value: object) -> bytes:
    """JSON as Python writes it: with NaN and lone surrogates, which it should not have."""
    return json.dumps(value).encode()


def said(port: int, data: bytes, cuts: list[int] = []) -> list[tuple[int, bytes]]:  # noqa: B006
    """Every answer to ``data``, sent in pieces, until the other side ends the connection."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        with contextlib.suppress(OSError):  # it has said what is wrong, and closed
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for begin, end in itertools.pairwise(places):
                client.sendall(data[begin:end])
            client.shutdown(socket.SHUT_WR)
        reset = False
        try:
            while some := client.recv(65536):
                found += some
        except ConnectionResetError:  # it closed before it had read all: its word may be lost
            reset = True
    answers = []
    while found:
        head, _, found = found.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        size = next((int(x[15:]) for x in lines if x.startswith("content-length:")), 0)
        answers.append((status, found[:size]))
        if reset and len(found) < size:
            break
        assert len(found) >= size, "an answer that was cut"
        found = found[size:]
    return answers


def judge(answers: list[tuple[int, bytes]]) -> None:
    """Each is an answer, or a refusal with its reason; none is a fault of the agent's."""
    for status, body in answers:
        if status in (100, 200):
            continue
        what = json.loads(body)["error"]
        own = status == 500 and "the model answered" in what  # numbers that its sums cannot hold
        assert (status in REFUSED or own) and what and "internal" not in what, (status, what)


def post(path: str, body: bytes, *fields: bytes) -> bytes:
    """A request as it should be, around a body that need not be."""
    length = b"content-length: %d" % len(body)
    lines = [b"POST " + path.encode() + b" HTTP/1.1", b"host: localhost", length, *fields]
    return b"\r\n".join([*lines, b"", body])


def test_any_json_is_answered_or_refused(door) -> None:
    right = said(door.port, post("/predict/pump", GOOD))

    def check(path: str, body: object) -> None:
        # Pipelined: what follows a refusal on the same connection is answered as ever.
        answers = said(door.port, post(path, packed(body)) + post("/predict/pump", GOOD))
        assert len(answers) == 2 and [answers[1]] == right
        judge(answers)

    fuzzed(check, path=paths, body=requests | rows)


def test_any_bytes_behind_the_json_are_answered_or_refused(door) -> None:
    def check(tensor: dict[str, Any], size: object, tail: bytes, shift: int) -> None:
        whole = packed({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]})
        field = b"inference-header-content-length: %d" % (len(whole) + shift)
        judge(said(door.port, post("/v2/models/pump/infer", whole + tail, field)))

    texts = st.lists(st.binary(max_size=4)).map(
        lambda items: b"".join(struct.pack("<I", len(item)) + item for item in items)
    )
    fuzzed(
        check, tensor=tensors, size=sizes | st.sampled_from([16, 32]),
        tail=st.binary(max_size=40) | texts | st.just(bytes(16)),
        shift=st.sampled_from([0, 0, 0, 1, -1, -(10**6), 10**11]),
    )  # fmt: skip


FRAGMENTS = [
    b"POST /predict/pump HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"GET /metrics HTTP/1.0\r\n",
    b"host: localhost\r\n", b"host: 127.0.0.1:80\r\n", b"content-length: 4\r\n", b"\r\n",
    b"content-length: 99999999999999999999\r\n", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n",
    b"transfer-encoding: gzip, chunked\r\n", b"5;ext=1\r\nhello\r\n", b"ffffffffffffffff\r\n",
    b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"content-encoding: gzip\r\n",
    b"expect: 100-continue\r\n", b"accept: */*\r\n", b" folded\r\n", b"\r", b"\n", b"\0", b":",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", post("/predict/pump", GOOD),
    b"inference-header-content-length: 3\r\n", b"prefer: wait=1\r\n", b"request-timeout: 1\r\n",
]  # fmt: skip


def test_any_stream_of_bytes_is_answered_refused_or_ended(door) -> None:
    def check(pieces: list[bytes], cuts: list[int]) -> None:
        judge(said(door.port, b"".join(pieces), cuts))
        assert [status for status, _ in said(door.port, post("/predict/pump", GOOD))] == [200]

    pieces = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=20), max_size=12)
    fuzzed(check, pieces=pieces, cuts=st.lists(st.integers(0, 2000), max_size=6))


def test_where_a_stream_is_cut_changes_no_answer(door) -> None:
    stream = post("/predict/pump", GOOD) * 2 + post("/v2/models/none/infer", b"{}", b"x: y")
    right = said(door.port, stream)
    assert [status for status, _ in right] == [200, 200, 404]

    def check(cuts: list[int]) -> None:
        assert said(door.port, stream, cuts) == right

    fuzzed(check, cuts=st.lists(st.integers(0, len(stream)), max_size=8))
