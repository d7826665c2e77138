"""The command ``edge-pack``, also as ``python -m edge_pack``."""

from edge_contract.ports.start import start


def main() -> None:
    """Run the command."""
    start("edge_pack.cli")


if __name__ == "__main__":
    main()
