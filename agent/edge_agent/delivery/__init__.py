"""How a device gets its models: signed metadata, verified chunks, whole slots."""

from edge_agent.delivery.delivery import Delivery, DeliveryConfig
from edge_agent.delivery.source import Stopped
from edge_agent.delivery.trust import Refreshed

__all__ = ["Delivery", "DeliveryConfig", "Refreshed", "Stopped"]
