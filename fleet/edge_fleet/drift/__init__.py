"""Drift on binned counts: pure; see ``edetector`` for the promise."""
