"""What the device counts of its predictions, keeps on disk, and sends home: never a row."""

from edge_agent.telemetry.recorder import Recorder
from edge_agent.telemetry.sender import Sender
from edge_agent.telemetry.spool import SPOOL_MAX_BYTES, Spool
from edge_agent.telemetry.window import Counts, Totals, Window

__all__ = ["SPOOL_MAX_BYTES", "Counts", "Recorder", "Sender", "Spool", "Totals", "Window"]
