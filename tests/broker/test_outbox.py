"""The queue of one session: windows, order, redelivery, bounds; without a network."""

import random

import pytest

from edge_fleet.broker.decode import decode
from edge_fleet.broker.framing import Framer
from edge_fleet.broker.message import Delivery, GroupKey, Message
from edge_fleet.broker.outbox import Outbox
from edge_fleet.broker.packets import Publish, Pubrel

GROUP = GroupKey("g", "t")


def sent(outbox, now=0.0):
    """The packets that may go now."""
    packets = []
    while (raw := outbox.next(now)) is not None:
        [(first, body)] = Framer(1 << 20).feed(raw)
        packets.append(decode(first, body))
    return packets


def filled(count, qos=1, window=65_535, group=None):
    outbox = Outbox(1 << 20)
    outbox.connected(window, 0)
    for number in range(count):
        outbox.push(Delivery(Message("t", b"%d" % number, qos), qos, group=group))
    return outbox


def test_the_window_opens_by_one_with_each_acknowledgement():
    outbox = filled(5, window=2)
    assert [packet.packet_id for packet in sent(outbox)] == [1, 2]
    assert sent(outbox) == []
    assert outbox.acknowledged(2)
    assert [packet.payload for packet in sent(outbox)] == [b"2"]


def test_qos_2_keeps_its_place_in_the_window_until_it_is_complete():
    outbox = filled(3, qos=2, window=1)
    assert len(sent(outbox)) == 1
    assert not outbox.completed(1)
    assert outbox.received(1, accepted=True)
    assert sent(outbox) == []
    assert outbox.completed(1)
    assert [packet.payload for packet in sent(outbox)] == [b"1"]
    assert outbox.received(2, accepted=False)  # refused is done with
    assert [packet.payload for packet in sent(outbox)] == [b"2"]


@pytest.mark.parametrize("answer", ["acknowledged", "completed"])
def test_an_answer_to_nothing_changes_nothing(answer):
    outbox = filled(2, qos=1)
    sent(outbox)
    assert not getattr(outbox, answer)(77)
    assert not outbox.received(1, accepted=True)  # of another QoS
    assert len(outbox) == 2


def test_a_new_connection_repeats_in_order_within_its_own_window():
    outbox = filled(5, window=4)
    sent(outbox)
    outbox.acknowledged(2)
    outbox.disconnected()
    outbox.connected(2, 0)
    first = sent(outbox)
    assert [(p.packet_id, p.dup) for p in first] == [(1, True), (3, True)]
    outbox.acknowledged(4)  # not yet repeated, answered all the same
    assert sent(outbox) == []
    outbox.acknowledged(1)
    [fresh] = sent(outbox)
    assert (fresh.payload, fresh.dup) == (b"4", False)


def test_released_messages_are_repeated_as_pubrel():
    outbox = filled(2, qos=2)
    sent(outbox)
    outbox.received(1, accepted=True)
    outbox.connected(10, 0)
    again = sent(outbox)
    assert [type(packet) for packet in again] == [Pubrel, Publish]


def test_qos_0_is_not_held_up_by_a_full_window_and_not_kept():
    outbox = filled(3, window=1)
    sent(outbox)
    outbox.push(Delivery(Message("t", b"now"), 0))
    assert [packet.payload for packet in sent(outbox)] == [b"now"]
    outbox.push(Delivery(Message("t", b"never"), 0))
    outbox.disconnected()
    outbox.connected(1, 0)
    assert b"never" not in [packet.payload for packet in sent(outbox)]


def test_identifiers_go_round_and_skip_those_in_use():
    outbox = Outbox(1 << 40)
    outbox.connected(10, 0)
    outbox.push(Delivery(Message("t", b"stays"), 1))
    assert sent(outbox)[0].packet_id == 1
    last = 0
    for _ in range(65_536):
        outbox.push(Delivery(Message("t", b""), 1))
        outbox.next(0.0)
        last = next(pid for pid in outbox.unfinished()[0] if pid != 1)
        outbox.acknowledged(last)
    assert last == 3  # 2 to 65,535, then 2 and 3: never 1


def test_expired_and_oversized_messages_do_not_start():
    outbox = Outbox(1 << 20)
    outbox.connected(10, 50)
    outbox.push(Delivery(Message("t", b"late", expires_at=5.0), 1))
    outbox.push(Delivery(Message("t", bytes(100)), 1))
    outbox.push(Delivery(Message("t", b"fits", expires_at=15.0), 1))
    [packet] = sent(outbox, now=5.0)
    assert (packet.payload, packet.properties.message_expiry) == (b"fits", 10)
    assert (outbox.dropped, len(outbox)) == (1, 1)


def test_shared_deliveries_are_withdrawn_but_for_qos_2_under_way():
    outbox = filled(4, qos=1, window=2, group=GROUP)
    sent(outbox)
    other = Delivery(Message("own", b""), 1)
    outbox.push(other)
    assert [d.message.payload for d in outbox.withdraw(GROUP)] == [b"0", b"1", b"2", b"3"]
    assert outbox.unfinished() == ({}, [other])
    twice = filled(2, qos=2, window=1, group=GROUP)
    sent(twice)
    assert [d.message.payload for d in twice.withdraw()] == [b"1"]
    assert len(twice) == 1


def test_whatever_happens_the_bytes_are_accounted_for():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    outbox = Outbox(20_000)
    outbox.connected(5, 0)
    now = 0.0
    for _ in range(5_000):
        now += 0.1
        ids = list(outbox.unfinished()[0]) or [1]
        match rng.randrange(8):
            case 0 | 1 | 2:
                qos = rng.randrange(3)
                expires = None if rng.random() < 0.7 else now + rng.random()
                message = Message("t", bytes(rng.randrange(900)), qos, expires_at=expires)
                outbox.push(Delivery(message, qos, group=rng.choice([None, GROUP])))
            case 3:
                sent(outbox, now)
            case 4:
                outbox.acknowledged(rng.choice(ids))
            case 5:
                outbox.received(rng.choice(ids), accepted=rng.random() < 0.8)
            case 6:
                outbox.completed(rng.choice(ids))
            case 7:
                if rng.random() < 0.2:
                    outbox.withdraw()
                outbox.disconnected()
                outbox.connected(rng.randint(1, 6), rng.choice([0, 500]))
        under_way, queued = outbox.unfinished()
        known = [entry.delivery for entry in under_way.values()] + queued
        assert outbox.queued_bytes >= sum(d.message.size_bytes for d in known)
        assert outbox.queued_bytes <= 20_000
    outbox.disconnected()
    under_way, queued = outbox.unfinished()
    known = [entry.delivery for entry in under_way.values()] + queued
    assert outbox.queued_bytes == sum(delivery.message.size_bytes for delivery in known)
