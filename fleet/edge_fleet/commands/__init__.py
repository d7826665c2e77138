"""The commands of ``edge-fleet``: each module parses, calls, prints; ``cli`` gathers them."""
