"""Names, filters and matching: the examples of MQTT 5.0 §4.7, and the structures against them."""

import random

import pytest

from edge_fleet.broker.access import Access, Right, User
from edge_fleet.broker.errors import ProtocolError
from edge_fleet.broker.message import GroupKey, Message
from edge_fleet.broker.retained import RetainedStore
from edge_fleet.broker.router import Router, Subscription
from edge_fleet.broker.topics import (
    MAX_LEVELS,
    check_topic,
    covers,
    is_filter,
    matches,
    split_shared,
)

# §4.7.1.2, §4.7.1.3, §4.7.2, §4.7.3: what the standard says, filter by filter.
EXAMPLES = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "a/b", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/tennis/#", "x/tennis/y", True),
    ("sport/+/player1", "sport/x/player1", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "$SYS/x", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("$SYS/#", "$SYS/x", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    ("ACCOUNTS", "Accounts", False),
    ("a//b", "a//b", True),
    ("a/+/b", "a//b", True),
    ("a/#", "a/$b", True),
    ("+/$b", "a/$b", True),
]


@pytest.mark.parametrize(("topic_filter", "topic", "hit"), EXAMPLES)
def test_the_examples_of_the_standard(topic_filter, topic, hit):
    assert matches(topic_filter, topic) is hit
    router = Router()
    router.subscribe("c", None, topic_filter, Subscription())
    router.subscribe("s", "g", topic_filter, Subscription())
    plan = router.plan(topic)
    assert bool(plan.targets) is bool(plan.groups) is hit
    store = RetainedStore(10_000)
    store.put(Message(topic, b"x"))
    assert bool(store.matching(topic_filter, 0)) is hit


@pytest.mark.parametrize("valid", ["#", "+", "/", "a/#", "+/a/+", "a//b", "$SYS/#", "a b/ü"])
def test_valid_filters(valid):
    assert is_filter(valid)


@pytest.mark.parametrize(
    "wrong", ["", "a#", "#/a", "a/#/b", "sport+", "a/+b", "a\0b", "/" * MAX_LEVELS]
)
def test_invalid_filters(wrong):
    assert not is_filter(wrong)


@pytest.mark.parametrize("wrong", ["", "a/#", "a/+/b", "a\0", "/" * MAX_LEVELS])
def test_invalid_names(wrong):
    with pytest.raises(ProtocolError):
        check_topic(wrong)


def test_shared_filters_are_split():
    assert split_shared("$share/g/a/#") == ("g", "a/#")
    assert split_shared("a/b") == (None, "a/b")
    for wrong in ("$share/g", "$share//a", "$share/g+/a", "$share/g/"):
        assert not is_filter(split_shared(wrong)[1])


def random_topic(rng, levels):
    """Not empty."""
    topic = "/".join(rng.choice(levels) for _ in range(rng.randint(1, 4)))
    return topic or random_topic(rng, levels)


def test_router_and_retained_store_agree_with_matching_whatever_comes_and_goes():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    router, store = Router(), RetainedStore(1 << 20)
    filters: set[str] = set()
    topics: set[str] = set()
    for _ in range(2000):
        topic_filter = random_topic(rng, ["a", "b", "", "$c", "+"])
        topic_filter += rng.choice(["", "", "/#"])
        topic = random_topic(rng, ["a", "b", "", "$c"])
        match rng.randrange(4):
            case 0:
                router.subscribe(topic_filter, None, topic_filter, Subscription())
                filters.add(topic_filter)
            case 1:
                router.unsubscribe(topic_filter, None, topic_filter)
                filters.discard(topic_filter)
            case 2:
                store.put(Message(topic, b"x"))
                topics.add(topic)
            case 3:
                store.erase(topic)
                topics.discard(topic)
        found = {target.client_id for target in router.plan(topic).targets}
        assert found == {f for f in filters if matches(f, topic)}
        kept = {message.topic for message in store.matching(topic_filter, 0)}
        assert kept == {t for t in topics if matches(topic_filter, t)}
    for topic in list(topics):
        store.erase(topic)
    for topic_filter in filters:
        router.unsubscribe(topic_filter, None, topic_filter)
    assert (len(store), store.size_bytes) == (0, 0)
    assert not store._root.children
    assert not router._root.children


def test_a_group_disappears_with_its_last_member():
    router = Router()
    router.subscribe("a", "g", "t", Subscription())
    router.subscribe("b", "g", "t", Subscription())
    router.unsubscribe("a", "g", "t")
    assert router.group(GroupKey("g", "t")).in_turn() == ["b"]
    router.unsubscribe("b", "g", "t")
    assert router.group(GroupKey("g", "t")) is None
    assert not router.plan("t").groups


def test_a_retained_store_keeps_its_bound():
    store = RetainedStore(1000)
    assert store.put(Message("a", bytes(500)))
    assert not store.put(Message("b", bytes(500)))
    assert store.put(Message("a", bytes(700)))  # in place of the first
    assert store.put(Message("a", b""))
    assert store.put(Message("b", bytes(500)))


def test_expired_retained_messages_are_forgotten():
    store = RetainedStore(1 << 20)
    store.put(Message("a/b", b"x", expires_at=10.0))
    assert store.matching("a/#", 9.9)
    assert not store.matching("a/#", 10.0)
    assert len(store) == 0


@pytest.mark.parametrize(
    ("pattern", "asked", "granted"),
    [
        ("#", "a/#", True),
        ("#", "$SYS/#", False),
        ("a/#", "a", True),
        ("a/#", "a/+/c", True),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/#", False),
        ("a/b", "a/+", False),
        ("+/b", "#", False),
        ("a/+/c", "a/b/c/d", False),
    ],
)
def test_a_right_covers_a_whole_filter_or_not_at_all(pattern, asked, granted):
    assert covers(pattern, asked) is granted


def test_a_name_with_wildcards_widens_no_right():
    user = User("", (Right("d/%c/#", read=True, write=True), Right("u/%u", read=True)))
    access = Access({"dev": user}, allow_anonymous=False)
    for hostile in ("+", "#", "a/b", "+/x"):
        rights = access.rights("dev", hostile)
        assert not rights.may_read("d/other/x")
        assert not rights.may_write("d/other/x")
    rights = access.rights("dev", "mine")
    assert rights.may_read("d/mine/#")
    assert rights.may_read("u/dev")
    assert not rights.may_read("u/%u")
