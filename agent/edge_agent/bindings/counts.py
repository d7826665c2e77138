"""What a binding did since the start, as ``edge-agent status`` shows it. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edge_contract.messages import Count


class BindingReport(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One binding at one moment; counts since the agent's start.

    Attributes:
        broker: where it listens. connected: to it, at this moment.
        messages: that belong to it. samples: values taken from them.
        odd: by what was wrong: ``oversize``, ``unreadable``, ``absent`` (the field is not there),
            ``late`` (older than one that is there), ``retained`` (of unknown age), ``clock`` (the
            time in it is wrong or unclear; arrival counted), ``dropped`` (too many at once).
        predictions, refused, failed: rows answered; turned away by the model's checks; on which
            the model failed. waited: there was no row, since values were missing.
        published: answers sent. unsent: they were not, for want of a connection or a right.
        why: what last stood in the way. last: the newest answer, at ``last_ms``.
    """

    model: str
    broker: str
    connected: bool = False
    messages: Count = 0
    samples: Count = 0
    odd: dict[str, Count] = {}
    predictions: Count = 0
    refused: Count = 0
    failed: Count = 0
    waited: Count = 0
    published: Count = 0
    unsent: Count = 0
    why: Annotated[str, Meta(max_length=500)] = ""
    last: Annotated[str, Meta(max_length=500)] = ""
    last_ms: Count = 0


def lines(name: str, found: BindingReport) -> list[str]:
    """For a person, a line each."""
    link = "connected" if found.connected else "not connected"
    odd = ", ".join(f"{count} {kind}" for kind, count in sorted(found.odd.items()))
    bad = ", ".join(
        f"{count} {kind}"
        for kind, count in (
            ("waited", found.waited),
            ("refused", found.refused),
            ("failed", found.failed),
            ("unsent", found.unsent),
        )
        if count
    )
    said = [
        f"binding     {name} of {found.model}: {found.broker}, {link}",
        f"  heard     {found.messages} messages, {found.samples} samples{odd and f'; {odd}'}",
        f"  answered  {found.predictions} rows, {found.published} published{bad and f'; {bad}'}",
    ]
    if found.last:
        said.append(f"  last      {found.last}")
    if found.why:
        said.append(f"  because   {found.why}")
    return said
