"""Comparisons, lists and flags mean what they say, and what moves is no ground for a rollout."""

import contextlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from edge_contract.errors import InputFault
from edge_contract.names import version_key
from edge_fleet.rollouts import selector

PI = {
    "site": "lyon", "hw": "aarch64", "agent": "1.10.2", "alive": "yes", "strained": "no",
    "version": ("2.0", "1.4"), "last_seen": "600.0", "alarms": "2", "ram": "4000000000",
    "disk_free": "12", "label.state": "new", "floor": "10", "clock_offset": "-7200.0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("agent<1.11", True),
        ("agent<1.9", False),
        ("agent >= 1.10.2 and agent <= 1.10.2", True),
        ("agent>1.10.2", False),
        ("floor>9", True),
        ("alive and not strained", True),
        ("strained", False),
        ("unsigned", False),
        ("last_seen<1h", True),
        ("last_seen<=600s", True),
        ("last_seen>15m", False),
        ("clock_offset<-1h", True),
        ("alarms>1 and alarms=2", True),
        ("ram>=4GB and ram<4GiB", True),
        ("disk_free<1k", True),
        ("version=2.*", True),
        ("version!=2.0", False),
        ("version<1.5 and version>1.9", True),
        ("site in (paris, lyon)", True),
        ("site in (par*, 'ly?n')", True),
        ("site in (paris)", False),
        ("site not in (paris, oslo)", True),
        ("not site in (lyon)", False),
        ("planet in (mars)", False),
        ("planet not in (mars)", True),
        ("planet<9 or planet>=9", False),
        ("label.state=new", True),
        ("label.site=lyon", True),
        ("site='<b>'", False),
        ("site=a<b or site=lyon", True),
    ],
)
def test_a_question_means_what_it_says(text: str, meant: bool) -> None:
    assert selector.parse(text, moving=True)(PI) is meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("last_seen<soon", "at character 11: expected a time such as 90s"),
        ("last_seen<5", "at character 11: expected a time"),
        ("ram>4apples", "at character 5: expected a size"),
        ("alarms>1h", "at character 8: expected a number"),
        ("site in paris", "at character 9: expected '(' after 'in', got 'paris'"),
        ("site in (paris", "at character 15: expected ',' or ')'"),
        ("site in ()", "at character 10: expected a value of 'site'"),
        ("site not paris", "at character 10: expected 'in' after 'site' not"),
        ("'site'", "at character 7: expected '=', '!=', '<', '>' or 'in'"),
        ("agent<", "at character 7: expected a value of 'agent'"),
    ],
)
def test_a_wrong_question_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        selector.parse(text, moving=True)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", sorted(selector.MOVING))
def test_what_a_rollout_itself_changes_is_no_ground_to_be_selected(key: str) -> None:
    with pytest.raises(InputFault, match="not what changes while it is updated") as caught:
        selector.parse(f"site=lyon and not {key}=2")
    assert f"label.{key}" in caught.value.advice
    assert selector.parse(f"label.{key}=2")({key: "2"}), "a label may be called so"


@given(st.text(alphabet="ab=<>! (),'\"notrdilve1h.*[", max_size=40))
def test_nothing_but_the_one_fault_escapes_the_parser(text: str) -> None:
    traits = {"a": "1", "alive": "yes", "b": ("x", "1h"), "last_seen": "inf"}
    with contextlib.suppress(InputFault):
        assert selector.parse(text, moving=True)(traits) in (True, False)


@given(st.text(max_size=12), st.text(alphabet="0123456789.abrc-", min_size=1, max_size=12))
def test_order_is_that_of_versions_and_total(own: str, bound: str) -> None:
    below = selector.parse(f'agent < "{bound}"')({"agent": own})
    not_below = selector.parse(f'agent >= "{bound}"')({"agent": own})
    assert below is (version_key(own) < version_key(bound))
    assert below is not not_below
