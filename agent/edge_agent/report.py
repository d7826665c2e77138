"""What the agent says of itself: to the fleet and to a person at the device. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from edge_agent.steps import State
from edge_agent.transfer import Transfer
from edge_contract.messages import Count, ModelReport

STATUS_MAX_BYTES = 1024 * 1024
_QUARANTINE_SHOWN = 32
_WAITS_MAX_CHARS = 200
_REASONS_MAX_CHARS = 24_000
"""Of all reasons together, so that a report of 256 models stays within its bound."""


class AgentStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The agent at one moment, as ``edge-agent status --json`` prints it.

    Attributes:
        running: an agent process holds the folder. pid: its number.
        connected: to the broker. freshness: of the signed metadata.
        revision: of the newest ``desired``. clock_synchronised: a time service keeps the clock.
        requests: rows answered, and failed, by what answers now, by model.
        spool_records, spool_bytes: telemetry not home yet. events_waiting: the same of events.
        twin: what is known of another agent under this name; "" when there was none of late.
        last_error: what last went wrong, at ``last_error_ms``; it may be long over.
    """

    schema: int = 1
    device: str
    fleet: str
    channel: str
    running: bool
    pid: Count = 0
    boot: Count = 0
    at_ms: Count = 0
    enrolled: bool = False
    connected: bool = False
    broker: str = ""
    freshness: str = "none"
    revision: Count = 0
    clock_synchronised: bool = False
    models: dict[str, ModelReport] = {}
    requests: dict[str, tuple[Count, Count]] = {}
    spool_records: Count = 0
    spool_bytes: Count = 0
    events_waiting: Count = 0
    twin: str = ""
    last_error: Annotated[str, Meta(max_length=4000)] = ""
    last_error_ms: Count = 0


def model_report(state: State, *, transfer: Transfer | None = None, why: str = "") -> ModelReport:
    """One model's state in the contract's words.

    ``transfer``: of the candidate, when it is being fetched. ``why``: why nothing is wanted; the
    state's own reason goes first.
    """
    moving = transfer if transfer and state.candidate else Transfer("")
    quarantined = dict.fromkeys(q.version for q in state.quarantine)
    return ModelReport(
        phase=state.phase.value,
        active=state.active.version if state.active else "",
        digest=state.active.sha256 if state.active else "",
        previous=state.previous.version if state.previous else "",
        candidate=state.candidate.version if state.candidate else "",
        progress=min(max(moving.share, 0.0), 1.0),
        reason=state.reason or why,
        quarantined=tuple(quarantined)[-_QUARANTINE_SHOWN:],
        done_bytes=moving.done_bytes,
        total_bytes=moving.total_bytes,
        bytes_per_s=moving.bytes_per_s,
        waits=moving.text[:_WAITS_MAX_CHARS],
        until_ms=moving.until_ms,
    )


def model_reports(
    states: Mapping[str, State], transfers: Mapping[str, Transfer], why: Mapping[str, str]
) -> dict[str, ModelReport]:
    """Every model that has a state, or a reason to have none."""
    names = sorted({*states, *(name for name, reason in why.items() if reason)})
    reports = {}
    for name in names:
        whole = model_report(
            states.get(name, State()), transfer=transfers.get(name), why=why.get(name, "")
        )
        reports[name] = replace(
            whole,
            reason=whole.reason[: max(_REASONS_MAX_CHARS // len(names), 40)],
            quarantined=whole.quarantined[-max(_QUARANTINE_SHOWN // len(names), 1) :],
        )
    return reports
