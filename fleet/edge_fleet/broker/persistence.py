"""The file that a restart reads: retained messages, and sessions that outlive connections.

stub
"""

from pathlib import Path

from edge_fleet.broker.engine import Engine


class StateFile:
    """The state of one broker in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, engine: Engine) -> None:
        """Read."""

    def save(self, engine: Engine) -> None:
        """Write."""

    async def save_aside(self, engine: Engine) -> None:
        """Write."""
