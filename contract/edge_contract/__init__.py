"""What all sides agree on: bundles, messages, topics, telemetry."""

__version__ = "0.1.0"
"""Of the distribution, and its one place: the build reads it here. ``importlib.metadata`` would
say it, too, and keeps a megabyte of a process that stays: it reads mail headers and archives."""
