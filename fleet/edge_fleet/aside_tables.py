"""Shadows and labels as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from edge_fleet.asides import LabelReport, ShadowReport, Share

Table = tuple[list[str], list[list[object]]]


def shadow(found: Sequence[ShadowReport]) -> Table:
    """A line a pair of versions."""
    columns = [
        "model", "live", "candidate", "devices", "rows", "agreement", "difference p50 / p99",
        "p99 ms (live)", "failed", "refused", "skipped",
    ]  # fmt: skip
    return columns, [
        [
            each.model, each.live_version, each.version, each.devices, each.rows,
            _share(each.agreement),
            f"{_figure(each.difference_p50)} / {_figure(each.difference_p99)}",
            f"{_figure(each.latency_p99_ms)} ({_figure(each.live_p99_ms)})",
            each.failed, each.refused, each.skipped,
        ]
        for each in found
    ]  # fmt: skip


def accuracy(found: Sequence[LabelReport]) -> Table:
    """A line a version."""
    columns = [
        "model", "version", "devices", "labelled", "coverage", "accuracy", "error p50 / p90",
        "contradicted", "late", "unknown",
    ]  # fmt: skip
    return columns, [
        [
            each.model, each.version, each.devices, each.labelled,
            "-" if each.coverage is None else f"{each.coverage:.1%}",
            _share(each.accuracy),
            f"{_figure(each.error_p50)} / {_figure(each.error_p90)}"
            if each.error_p50 is not None else "-",
            each.contradicted, each.late, each.unknown,
        ]
        for each in found
    ]  # fmt: skip


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{share.share:.1%} ({share.low:.1%} to {share.high:.1%})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
