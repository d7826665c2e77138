"""The command ``edge-agent``, also as ``python -m edge_agent``."""

from edge_contract.ports.start import start


def main() -> None:
    """Run the command."""
    start("edge_agent.cli")


if __name__ == "__main__":
    main()
