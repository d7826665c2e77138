"""A mosquitto as a child process: found, started, stopped, killed, started again."""

import os

import pytest

from edge_fleet.broker import (
    BrokerConfigError,
    BrokerError,
    MosquittoConfig,
    MosquittoProcess,
    Right,
    User,
    find_mosquitto,
)


@pytest.fixture(autouse=True)
def needs_mosquitto():
    if find_mosquitto() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no mosquitto: CI tests against a real one")
        pytest.skip("no mosquitto on PATH or in /usr/sbin")


def test_it_is_found_where_debian_puts_it_too(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_mosquitto() is not None


def test_it_listens_on_the_loopback_and_ends_with_its_context(connect):
    with MosquittoProcess() as broker:
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        assert connect(broker, "c").reason == 0
    with pytest.raises(OSError, match="refused"):
        connect(broker, "c")


def test_a_kill_loses_what_was_not_saved_and_start_takes_the_same_port(tmp_path, connect):
    with MosquittoProcess(MosquittoConfig(directory=tmp_path)) as broker:
        port = broker.port
        connect(broker, "pub").publish("r", b"x", 1, True)
        broker.kill()
        broker.start()
        assert broker.port == port
        sub = connect(broker, "sub")
        sub.subscribe("r", 1)
        assert sub.settle() == []


def test_save_on_change_outlives_a_kill(tmp_path, connect, wait_for):
    config = MosquittoConfig(directory=tmp_path, save_on_change=True)
    with MosquittoProcess(config) as broker:
        connect(broker, "pub").publish("r", b"x", 1, True)
        wait_for((tmp_path / "mosquitto.db").exists, "the saved state")
        broker.kill()
        broker.start()
        sub = connect(broker, "sub")
        sub.subscribe("r", 1)
        assert sub.expect(1)[0].payload == b"x"


def test_a_wrong_configuration_is_an_error_with_its_words():
    broker = MosquittoProcess(MosquittoConfig(extra=("no_such_option 1",)))
    with pytest.raises(BrokerError, match="no_such_option"):
        broker.start()
    broker.stop()


def test_a_right_that_it_cannot_express_is_refused():
    users = {"u": User("p", (Right("d/%c/#", read=True),))}
    with pytest.raises(BrokerConfigError, match="%c"):
        MosquittoConfig(users=users)


def test_passwords_are_not_written_as_they_are(tmp_path, connect):
    users = {"u": User("very secret", (Right("#", read=True),))}
    with MosquittoProcess(MosquittoConfig(directory=tmp_path, users=users)) as broker:
        assert connect(broker, "c", user=("u", "very secret")).reason == 0
    for path in tmp_path.iterdir():
        assert b"very secret" not in path.read_bytes()
    assert (tmp_path / "passwords").stat().st_mode & 0o777 == 0o600


def test_a_port_that_another_has_is_refused_and_its_owner_not_taken_for_ours():
    with MosquittoProcess() as first:
        second = MosquittoProcess(MosquittoConfig(port=first.port))
        with pytest.raises(BrokerError, match="Address already in use"):
            second.start()
        second.stop()
