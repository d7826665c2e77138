"""The column with the true answers: see ``gates.truth``."""

from __future__ import annotations

from edge_pack.gates.truth import read as read_truth

__all__ = ["read_truth"]
