"""Tokens, limits and cursors: what stands between a stranger and the store."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import InputFault
from edge_fleet.api import cursors, feed, limits, tokens
from edge_fleet.api.limits import Buckets, of_address


def test_a_token_is_kept_as_its_hash_and_good_until_it_expires_or_is_revoked(
    rng: np.random.Generator,
) -> None:
    token, text = tokens.mint("grafana", "viewer", 1000, 5000, rng.bytes)
    assert tokens.id_of(text) == token.id
    assert token.sha256 == hashlib.sha256(text.encode()).digest()
    assert len(text.split("_", 2)[2]) == 43, "256 bits"
    assert tokens.valid(text, token, 4999)
    assert not tokens.valid(text, token, 5000)
    assert not tokens.valid(text, replace(token, revoked_ms=1), 2000)
    assert not tokens.valid(text, None, 2000)
    other = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert not tokens.valid(other, token, 2000)
    assert not tokens.valid("", token, 2000)


def test_no_two_tokens_are_alike_and_none_is_of_an_unknown_role(rng: np.random.Generator) -> None:
    made = {tokens.mint("x", "admin", 0, None, rng.bytes)[1] for _ in range(50)}
    assert len(made) == 50
    for name, role in (("x", "root"), ("a b", "viewer"), ("", "viewer")):
        with pytest.raises(InputFault):
            tokens.mint(name, role, 0, None, rng.bytes)


def test_each_role_may_what_those_below_may() -> None:
    table = [[tokens.may(role, needed) for needed in tokens.ROLES] for role in tokens.ROLES]
    assert table == [[True, False, False], [True, True, False], [True, True, True]]


@given(st.text(max_size=100))
def test_what_is_no_token_names_none(text: str) -> None:
    assert tokens.id_of(text) is None


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    buckets = Buckets(per_s=2, burst=4)
    assert [buckets.take("a", 0.0) for _ in range(5)] == [0, 0, 0, 0, 1]
    assert buckets.take("b", 0.0) == 0, "another's bucket is another's"
    assert buckets.take("a", 0.5) == 0
    assert buckets.take("a", 0.5) == 1
    assert buckets.take("a", -5.0) == 1, "a clock that goes back gives nothing"
    buckets.charge("b", 0.0, 100)
    assert buckets.take("b", 0.0) == 1


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.1, 5)), max_size=60))
def test_no_bucket_gives_more_than_burst_and_rate(asked: list[tuple[float, float]]) -> None:
    buckets, now, given_out = Buckets(per_s=3, burst=5), 0.0, 0.0
    for wait, cost in asked:
        now += wait
        given_out += cost if buckets.take("a", now, cost) == 0 else 0
    assert given_out <= 5 + 3 * now + 1e-6


def test_the_memory_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS_MAX", 10)
    buckets = Buckets(1, 1)
    for n in range(100):
        buckets.take(str(n), 0.0)
    assert len(buckets) == 10


def test_an_ipv6_network_is_one_customer() -> None:
    assert of_address("2001:db8::1") == of_address("2001:db8::ffff:1") == "2001:db8::/64"
    assert of_address("::ffff:10.0.0.1") == of_address("10.0.0.1") == "10.0.0.1"
    assert of_address("fe80::1%eth0") == "fe80::/64"
    assert of_address("x" * 500) == "x" * 64


@given(
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64),
)
def test_a_cursor_comes_back_as_it_went(number: int, text: str) -> None:
    made = cursors.encode("events", (number, text))
    assert cursors.decode(made, "events", (int, str)) == (number, text)
    for kind, types in (("alarms", (int, str)), ("events", (str, int)), ("events", (int,))):
        with pytest.raises(InputFault, match="not one of a page"):
            cursors.decode(made, kind, types)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(bytes.hex)))
def test_what_is_no_cursor_is_refused_as_such(text: str) -> None:
    if text:
        with pytest.raises(InputFault):
            cursors.decode(text, "events", (int, str, int, int))
        with pytest.raises(InputFault):
            feed.parse(text)


@pytest.mark.parametrize("key", [(2**64, "a"), (True, "a"), (1, "a\0"), (None, "a"), (1.5, "a")])
def test_a_cursor_holds_only_what_a_database_takes(key: tuple[object, ...]) -> None:
    made = cursors.encode("events", key)  # type: ignore[arg-type]
    with pytest.raises(InputFault):
        cursors.decode(made, "events", (int, str))


def test_a_position_in_the_stream_comes_back_as_it_went() -> None:
    one = feed.Position((7, "pi", 1, 2), (3, 4), (5, 6))
    assert feed.parse(one.text()) == one
    with pytest.raises(InputFault):
        feed.parse("")
