"""The command ``edge-agent``, also as ``python -m edge_agent``."""

import os
import sys

from edge_agent import running
from edge_contract.ports.start import start


def main() -> None:
    """Run the command."""
    known = running.read(sys.argv[1:], os.environ) is not None
    start("edge_agent.running" if known else "edge_agent.cli")


if __name__ == "__main__":
    main()
