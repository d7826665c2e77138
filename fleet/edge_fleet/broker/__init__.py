"""A small MQTT 5 broker on the loopback: for the demo, one engineer's desk, and hostile tests.

Standard library only. For other machines use mosquitto or another MQTT 5 broker: this one has no
TLS and refuses any other address.
"""

from edge_fleet.broker.access import Right, User
from edge_fleet.broker.config import BrokerConfig
from edge_fleet.broker.engine import Counters
from edge_fleet.broker.errors import BrokerConfigError, BrokerError, StateFileError
from edge_fleet.broker.faults import Corrupt, Delay, Double, Fault, Lose, LoseAck, Reorder, Replace
from edge_fleet.broker.message import Message
from edge_fleet.broker.mosquitto import MosquittoConfig, MosquittoProcess, find_mosquitto
from edge_fleet.broker.server import Broker
from edge_fleet.broker.taps import Direction, Outcome, Passing, Tap
from edge_fleet.broker.thread import BrokerThread

__all__ = [
    "Broker",
    "BrokerConfig",
    "BrokerConfigError",
    "BrokerError",
    "BrokerThread",
    "Corrupt",
    "Counters",
    "Delay",
    "Direction",
    "Double",
    "Fault",
    "Lose",
    "LoseAck",
    "Message",
    "MosquittoConfig",
    "MosquittoProcess",
    "Outcome",
    "Passing",
    "Reorder",
    "Replace",
    "Right",
    "StateFileError",
    "Tap",
    "User",
    "find_mosquitto",
]
