"""The command ``edge-fleet``, also as ``python -m edge_fleet``."""

from edge_contract.ports.start import start


def main() -> None:
    """Run the command."""
    start("edge_fleet.cli")


if __name__ == "__main__":
    main()
