"""What a restart, a power cut and a damaged file do to retained messages and sessions."""

import pytest

from edge_fleet.broker import BrokerConfig, BrokerError, BrokerThread, Message, StateFileError
from edge_fleet.broker.errors import ProtocolError
from edge_fleet.broker.message import Delivery, GroupKey
from edge_fleet.broker.persistence import RETAINED, SESSIONS
from edge_fleet.broker.properties import Properties
from edge_fleet.broker.router import Subscription
from edge_fleet.broker.session import NEVER_EXPIRES, Session
from edge_fleet.broker.state import (
    pack_retained,
    pack_sessions,
    unpack_retained,
    unpack_sessions,
)

RICH = Properties(
    payload_format=1,
    content_type="t",
    response_topic="r",
    correlation_data=b"\x00",
    user_properties=(("a", "b"), ("a", "b")),
)
MESSAGES = [
    Message("a", b"\x00\xff" * 100, 2, True, RICH, None, "c"),
    Message("b/ü", b"x", 0, True),
    Message("c", b"y", 1, True, expires_at=160.0),
]
KEEP = {"clean": False, "SessionExpiryInterval": 100}


def a_session():
    """With something in every place."""
    session = Session("c", "user", 1 << 20)
    session.expiry_s = 50
    session.ends_at = 130.0
    session.received = {3, 65_535}
    session.subscriptions = {"$share/g/a/#": Subscription(2), "b": Subscription(1, True, True, 9)}
    outbox = session.outbox
    outbox.connected(3, 0)
    group = GroupKey("g", "a/#")
    for number in range(5):
        message = Message("a", b"%d" % number, 1 + number % 2, properties=RICH)
        outbox.push(Delivery(message, 1 + number % 2, number == 4, (9,), group))
    while outbox.next(100.0):
        pass
    outbox.received(2, accepted=True)
    outbox.disconnected()
    return session


# The format -----------------------------------------------------------------------------------


def test_retained_messages_come_back_as_they_were():
    raw = b"".join(pack_retained(MESSAGES, now=100.0, saved_at=5_000.0))
    # Another process: its clock says 7 where the old one said 100, and ten seconds have passed.
    back = unpack_retained(raw, now=7.0, read_at=5_010.0)
    assert back[:2] == MESSAGES[:2]
    assert back[2] == MESSAGES[2]._replace(expires_at=57.0)


def test_what_expired_meanwhile_does_not_come_back():
    raw = b"".join(pack_retained(MESSAGES, now=100.0, saved_at=5_000.0))
    assert len(unpack_retained(raw, now=0.0, read_at=5_061.0)) == 2
    raw = b"".join(pack_sessions([a_session()], now=100.0, saved_at=5_000.0))
    assert len(unpack_sessions(raw, 0.0, 5_029.0, 1 << 20)) == 1
    assert len(unpack_sessions(raw, 0.0, 5_031.0, 1 << 20)) == 0


def test_a_wall_clock_that_went_back_expires_nothing():
    raw = b"".join(pack_retained(MESSAGES, now=100.0, saved_at=5_000.0))
    assert unpack_retained(raw, now=0.0, read_at=1_000.0)[2].expires_at == 60.0


def test_a_session_comes_back_with_all_that_waits_in_it():
    session = a_session()
    raw = b"".join(pack_sessions([session], now=100.0, saved_at=0.0))
    [back] = unpack_sessions(raw, now=100.0, read_at=0.0, max_queue_bytes=1 << 20)
    for name in ("client_id", "username", "expiry_s", "ends_at", "received", "subscriptions"):
        assert getattr(back, name) == getattr(session, name), name
    assert back.outbox.unfinished() == session.outbox.unfinished()
    assert back.outbox.queued_bytes == session.outbox.queued_bytes
    sent, queued = back.outbox.unfinished()
    assert [entry.released for entry in sent.values()] == [False, True, False]
    assert len(queued) == 2


def test_sessions_that_end_with_their_connection_are_not_kept():
    session = Session("c", None, 1000)
    raw = b"".join(pack_sessions([session], 0.0, 0.0))
    assert unpack_sessions(raw, 0.0, 0.0, 1000) == []
    session.expiry_s = NEVER_EXPIRES
    raw = b"".join(pack_sessions([session], 0.0, 0.0))
    [back] = unpack_sessions(raw, 1e9, 1e9, 1000)
    assert back.ends_at is None


@pytest.mark.parametrize("kind", [RETAINED, SESSIONS])
def test_a_file_cut_or_changed_anywhere_is_refused(kind):
    if kind == RETAINED:
        raw = b"".join(pack_retained(MESSAGES[1:], 100.0, 0.0))
    else:
        raw = b"".join(pack_sessions([a_session()], 100.0, 0.0))

    def read(data):
        if kind == RETAINED:
            return unpack_retained(data, 0.0, 0.0)
        return unpack_sessions(data, 0.0, 0.0, 1 << 20)

    assert read(raw)
    for length in range(len(raw)):
        with pytest.raises(StateFileError):
            read(raw[:length])
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 0x01
        try:
            read(bytes(changed))
        except StateFileError:
            continue
        # Only the spelling of the seal itself may change without being a lie.
        raise AssertionError(f"byte {at} of {len(raw)} was changed unnoticed")


def test_a_file_of_the_other_kind_is_refused():
    raw = b"".join(pack_retained(MESSAGES, 100.0, 0.0))
    with pytest.raises(StateFileError, match="expected 'sessions'"):
        unpack_sessions(raw, 0.0, 0.0, 1000)


# The broker -----------------------------------------------------------------------------------


def test_with_interval_0_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path, connect):
    config = BrokerConfig(state_dir=tmp_path, save_interval_s=0)
    with BrokerThread(config) as broker:
        sub = connect(broker, "sub", **KEEP)
        sub.subscribe("t", 2)
        sub.disconnect()
        for number in range(10):
            pub = connect(broker, f"pub{number}")
            assert pub.publish("t", b"%d" % number, 1) == 0
            assert pub.publish(f"r/{number}", b"x", 2, True) in {0, 0x10}
            broker.kill()
            broker.start()
        again = connect(broker, "sub", **KEEP)
        assert again.present
        assert [int(message.payload) for message in again.expect(10)] == list(range(10))
        assert len(broker.retained("r/+")) == 10


def test_with_interval_0_a_power_cut_does_not_undo_exactly_once(tmp_path, connect, dial):
    expiry = b"\x11\x00\x00\x00\x64"
    with BrokerThread(BrokerConfig(state_dir=tmp_path, save_interval_s=0)) as broker:
        sub = connect(broker, "sub", **KEEP)
        sub.subscribe("t", 2)
        sub.disconnect()
        for _ in range(3):
            pub = dial(broker)
            pub.connect("pub", clean=False, props=expiry)
            pub.publish("t", b"x", qos=2, mid=9, dup=True)
            assert pub.read()[0] == 0x50
            broker.kill()
            broker.start()
        assert connect(broker, "sub", **KEEP).settle() == [b"x"]


def test_a_power_cut_costs_no_more_than_the_interval(tmp_path, connect, wait_for):
    with BrokerThread(BrokerConfig(state_dir=tmp_path, save_interval_s=0.05)) as broker:
        connect(broker, "pub").publish("r", b"x", 1, True)
        wait_for((tmp_path / RETAINED).exists, "the file")
        broker.kill()
        broker.start()
        assert broker.retained() == {"r": b"x"}


def test_files_are_replaced_never_rewritten(tmp_path, connect):
    with BrokerThread(BrokerConfig(state_dir=tmp_path, save_interval_s=0)) as broker:
        pub = connect(broker, "pub", **KEEP)
        pub.publish("r", b"1", 1, True)
        before = (tmp_path / RETAINED).open("rb")  # an open file keeps its old contents
        old = before.read()
        pub.publish("r", b"2", 1, True)
        before.seek(0)
        assert before.read() == old
        before.close()
    assert {path.name for path in tmp_path.iterdir()} == {RETAINED, SESSIONS}


def test_without_a_state_dir_a_restart_forgets(connect):
    with BrokerThread() as broker:
        connect(broker, "pub").publish("r", b"x", 1, True)
        broker.restart()
        assert broker.retained() == {}


def test_a_session_that_runs_out_while_the_broker_is_up_again_ends(tmp_path, connect, wait_for):
    with BrokerThread(BrokerConfig(state_dir=tmp_path)) as broker:
        connect(broker, "c", clean=False, SessionExpiryInterval=1).subscribe("t", 1)
        broker.restart()
        assert broker.sessions() == {"c": 0}
        wait_for(lambda: broker.sessions() == {}, "the end of the session")


def test_a_stop_is_no_death_and_publishes_no_wills(tmp_path, connect):
    with BrokerThread(BrokerConfig(state_dir=tmp_path)) as broker:
        connect(broker, "c", will=("status", b"dead"), will_retain=True, **KEEP)
        connect(broker, "w", **KEEP).subscribe("status", 1)
        broker.restart()
        assert broker.retained() == {}
        assert connect(broker, "w", **KEEP).settle() == []


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path, connect):
    broker = BrokerThread(BrokerConfig(state_dir=tmp_path))
    (tmp_path / RETAINED).write_bytes(b"not ours")
    with pytest.raises(BrokerError, match="move the files"):
        broker.start()
    (tmp_path / RETAINED).unlink()
    with broker:
        assert connect(broker, "c").reason == 0


def test_the_declared_errors_are_apart():
    assert not issubclass(ProtocolError, BrokerError)
