"""`edge-fleet serve` as a process, and what it said."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fleet_kit import FLEET, until


@dataclass
class Server:
    """One process; ``log`` is where it speaks."""

    log: Path
    words: tuple[str | Path, ...]
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "edge_fleet", "serve", "--fleet", FLEET, *self.words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def said(self) -> str:
        """All that it said."""
        return self.log.read_text()

    def says(self, text: str) -> None:
        """Wait until it said ``text``."""

        def heard() -> bool:
            assert self.process.poll() is None, self.said()[-3000:]
            return text in self.said()

        until(heard, f"{self.log.name} says {text!r}")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """In order; it ends well."""
        self.process.terminate()
        assert self.process.wait(120) == 0, self.said()[-3000:]
