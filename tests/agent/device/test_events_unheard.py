"""Events at a broker where nobody listens: a broker takes them and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_agent.outbox import Outbox
from edge_agent.uplink import UNHEARD_S, Uplink
from edge_contract import broker_url, messages
from edge_contract.messages import Event, Hardware, Reported
from edge_contract.ports.mqtt import Link, LinkConfig, Message

EVENTS = "edge/1/home/d/pi1/ev"
HARDWARE = Hardware(
    machine="x86_64", cpus=1, ram_bytes=1, system="linux", python="3.11", onnxruntime="1.20"
)


class Ends:
    """An uplink, its outbox, its clock, and who may listen."""

    def __init__(self, url: str, folder: Path) -> None:
        settings = folder / "agent.toml"
        settings.write_text(f'[agent]\ndevice = "pi1"\nfleet = "home"\n[broker]\nurl = "{url}"\n')
        (folder / "outbox").mkdir()
        self.now_s = 0.0
        self.ups = 0
        self.outbox = Outbox(folder / "outbox")
        self.uplink = Uplink(
            configs.load(settings, {}), boot=3, version="1", outbox=self.outbox,
            on_message=lambda _: None, on_up=self._up, on_down=lambda _: None,
            clock_s=lambda: self.now_s,
        )  # fmt: skip
        self.heard: list[int] = []
        self.link = Link(
            LinkConfig(broker=broker_url.parse(url), client_id="ear"), on_message=self._received
        )

    def _up(self) -> None:
        self.ups += 1
        self.uplink.flush()

    def _received(self, message: Message) -> None:
        self.heard.append(messages.decode(message.payload, Event).seq)

    def tell(self, seq: int) -> None:
        self.uplink.tell(Event(boot=3, seq=seq, at_ms=1, kind="committed"))

    def report(self) -> None:
        self.uplink.report(Reported(boot=3, at_ms=1, agent="1", hardware=HARDWARE))

    def settled(self) -> bool:
        """Every event that was sent was answered."""
        return not self.uplink._sending


@pytest.fixture
def ends(start_broker: Callable[..., object], tmp_path: Path) -> Iterator[Ends]:
    made = Ends(start_broker().url, tmp_path)  # type: ignore[attr-defined]
    made.uplink.start()
    yield made
    made.uplink.stop()
    made.link.stop()


def test_events_wait_on_disk_until_somebody_listens(ends: Ends, until: Callable[..., None]) -> None:
    """On the embedded broker and on mosquitto: both say that nobody listened."""
    until(lambda: ends.ups, "the connection")
    for seq in range(5):
        ends.tell(seq)
    until(ends.settled, "answers")
    assert len(ends.outbox.waiting()) == 5, "taken by a broker, home with nobody"

    ends.link.start(60)
    ends.link.subscribe([EVENTS]).wait(60)
    ends.report()
    until(ends.settled, "nothing is sent")
    assert not ends.heard, "a broker is not asked again at once"
    ends.now_s += UNHEARD_S
    ends.report()
    until(lambda: not ends.outbox.waiting(), "one was heard, so the others follow")
    until(lambda: sorted(ends.heard) == [0, 1, 2, 3, 4], "each of them arrived")
    ends.tell(5)
    until(lambda: not ends.outbox.waiting(), "a new one goes at once")


def test_one_event_at_a_time_asks_whether_somebody_listens(
    ends: Ends, until: Callable[..., None]
) -> None:
    until(lambda: ends.ups, "the connection")
    ends.tell(0)
    until(ends.settled, "an answer")
    ends.tell(1)
    until(ends.settled, "an answer")
    ends.now_s += UNHEARD_S
    ends.report()
    until(ends.settled, "an answer")
    assert len(ends.outbox.waiting()) == 2
    ends.report()
    assert ends.settled(), "not before the next quarter of an hour"


def test_an_event_that_the_disk_does_not_take_is_sent_all_the_same(
    ends: Ends, tmp_path: Path, until: Callable[..., None]
) -> None:
    until(lambda: ends.ups, "the connection")
    ends.link.start(60)
    ends.link.subscribe([EVENTS]).wait(60)
    (tmp_path / "outbox").rmdir()
    (tmp_path / "outbox").write_text("no folder can be here")
    ends.tell(0)
    ends.tell(1)
    until(lambda: sorted(ends.heard) == [0, 1], "both arrived")
    until(ends.settled, "answers")
