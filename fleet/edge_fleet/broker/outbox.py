"""What one session still has to get: queued, sent but unacknowledged, released. Pure.

Guards the Receive Maximum (MQTT 5.0 §4.9), the order of messages (§4.6), redelivery (§4.4) and the
bound of the queue, which is in bytes: a count says nothing about memory.
"""

from collections import deque
from typing import NamedTuple

from edge_fleet.broker import encode
from edge_fleet.broker.message import Delivery, to_publish
from edge_fleet.broker.packets import Pubrel

_IDS = 65_535


class Sent(NamedTuple):
    """A delivery under way; `released` once the receiver of a QoS 2 message has said PUBREC."""

    delivery: Delivery
    released: bool = False


class Outbox:
    """Deliveries of one session in order. `dropped` counts those that were given up."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._assured: deque[Delivery] = deque()  # QoS 1 and 2
        self._fleeting: deque[Delivery] = deque()  # QoS 0
        self._sent: dict[int, Sent] = {}
        self._again: deque[int] = deque()  # sent on an earlier connection, not yet on this one
        self._next_id = 0
        self._window = _IDS
        self._max_packet_bytes = 0  # 0: no limit
        self.queued_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._assured) + len(self._fleeting) + len(self._sent)

    def connected(self, receive_maximum: int, max_packet_bytes: int) -> None:
        """A connection begins: whatever is unacknowledged goes again first (§4.4)."""
        self._window = receive_maximum
        self._max_packet_bytes = max_packet_bytes
        self._again = deque(self._sent)

    def disconnected(self) -> None:
        """A connection is over: QoS 0 is not kept for the next."""
        while self._fleeting:
            self.queued_bytes -= self._fleeting.popleft().message.size_bytes

    def push(self, delivery: Delivery) -> bool:
        """Queue a delivery; False, and one more dropped, when the bound would be passed."""
        size_bytes = delivery.message.size_bytes
        if self.queued_bytes + size_bytes > self._max_bytes:
            self.dropped += 1
            return False
        self.queued_bytes += size_bytes
        (self._assured if delivery.qos else self._fleeting).append(delivery)
        return True

    def next(self, now: float) -> bytes | None:
        """The next packet that may be sent; None when all is sent or the window is full."""
        while len(self._sent) - len(self._again) < self._window:
            if self._again:
                return self._repeat(self._again.popleft(), now)
            if not self._assured:
                break
            packet = self._start(self._assured.popleft(), now)
            if packet is not None:
                return packet
        while self._fleeting:
            packet = self._start(self._fleeting.popleft(), now)
            if packet is not None:
                return packet
        return None

    def acknowledged(self, packet_id: int) -> bool:
        """PUBACK: a QoS 1 message is delivered. False for an unknown identifier."""
        sent = self._sent.get(packet_id)
        if sent is None or sent.delivery.qos != 1:
            return False
        self._forget(packet_id)
        return True

    def received(self, packet_id: int, accepted: bool) -> bool:
        """PUBREC: a QoS 2 message has arrived, or is refused. False for an unknown identifier."""
        sent = self._sent.get(packet_id)
        if sent is None or sent.delivery.qos != 2:
            return False
        if accepted:
            self._sent[packet_id] = sent._replace(released=True)
        else:
            self._forget(packet_id)
        return True

    def completed(self, packet_id: int) -> bool:
        """PUBCOMP: a QoS 2 message is done with. False for an unknown identifier."""
        sent = self._sent.get(packet_id)
        if sent is None or not sent.released:
            return False
        self._forget(packet_id)
        return True

    def withdraw(self, group_filter: tuple[str, str] | None = None) -> list[Delivery]:
        """Take out the shared deliveries that another member may get (§4.8.2).

        That is: those queued, and those sent with QoS 1 and not acknowledged. With QoS 2 a second
        receiver could make a second copy, so what was sent stays. None: of all groups.
        """

        def shared(delivery: Delivery) -> bool:
            return delivery.group is not None and group_filter in {None, delivery.group}

        taken = []
        for packet_id, (delivery, _) in list(self._sent.items()):
            if delivery.qos == 1 and shared(delivery):
                taken.append(delivery)
                self._forget(packet_id)
        kept: deque[Delivery] = deque()
        for delivery in self._assured:
            if shared(delivery):
                taken.append(delivery)
                self.queued_bytes -= delivery.message.size_bytes
            else:
                kept.append(delivery)
        self._assured = kept
        return taken

    def unfinished(self) -> tuple[dict[int, Sent], list[Delivery]]:
        """What a restart must not lose: sent by packet identifier, and queued."""
        return dict(self._sent), list(self._assured)

    def restore(self, sent: dict[int, Sent], queued: list[Delivery]) -> None:
        """Put back what `unfinished` gave, into an empty outbox."""
        self._sent.update(sent)
        self._assured.extend(queued)
        self._next_id = max(sent, default=0)
        self.queued_bytes = sum(delivery.message.size_bytes for delivery in queued)
        self.queued_bytes += sum(entry.delivery.message.size_bytes for entry in sent.values())

    def _start(self, delivery: Delivery, now: float) -> bytes | None:
        """Send for the first time; None when the message has expired or is too large."""
        message = delivery.message
        if message.expired(now):
            self.queued_bytes -= message.size_bytes
            return None
        packet_id = self._free_id() if delivery.qos else 0
        packet = encode.publish(to_publish(delivery, packet_id, now))
        if self._max_packet_bytes and len(packet) > self._max_packet_bytes:
            # §3.1.2.11.4: act as if the sending were complete.
            self.queued_bytes -= message.size_bytes
            self.dropped += 1
            return None
        if packet_id:
            self._sent[packet_id] = Sent(delivery)
        else:
            self.queued_bytes -= message.size_bytes
        return packet

    def _repeat(self, packet_id: int, now: float) -> bytes:
        delivery, released = self._sent[packet_id]
        if released:
            return encode.encode(Pubrel(packet_id))
        return encode.publish(to_publish(delivery, packet_id, now)._replace(dup=True))

    def _forget(self, packet_id: int) -> None:
        sent = self._sent.pop(packet_id)
        self.queued_bytes -= sent.delivery.message.size_bytes
        if self._again and packet_id in self._again:
            self._again.remove(packet_id)

    def _free_id(self) -> int:
        """The next identifier not in use; there is one, for no window is wider than all of them."""
        packet_id = self._next_id % _IDS + 1
        while packet_id in self._sent:
            packet_id = packet_id % _IDS + 1
        self._next_id = packet_id
        return packet_id
