"""What the agent says of itself: to the fleet and to a person at the device. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from edge_agent.bindings.counts import BindingReport
from edge_agent.steps import State
from edge_agent.transfer import Transfer
from edge_contract.messages import Count, Failure, ModelReport, Strain

STATUS_MAX_BYTES = 1024 * 1024
_QUARANTINE_SHOWN = 32
_FAILURES_SHOWN = 8
_FAILURE_REASON_MAX_CHARS = 300
_WAITS_MAX_CHARS = 200
_WAITS_ALL_MAX_CHARS = 8_000
_REASONS_MAX_CHARS = 24_000
"""Of all reasons together, so that a report of 256 models stays within its bound."""


class PrivacyReport(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What noise costs and who waits for it, for ``edge-agent status``.

    Attributes:
        epsilon_per_day, delta: the budget. spent: epsilon of the last 24 hours.
        waiting: rows that wait, and how many make a window worth its noise, by model.
    """

    epsilon_per_day: float
    delta: float
    spent: float = 0.0
    waiting: dict[str, tuple[Count, Count]] = {}

    @property
    def left(self) -> float:
        """Epsilon that is left of the day's."""
        return max(self.epsilon_per_day - self.spent, 0.0)


class AgentStatus(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The agent at one moment, as ``edge-agent status --json`` prints it.

    Attributes:
        running: an agent process holds the folder. pid: its number.
        connected: to the broker. freshness: of the signed metadata.
        revision: of the newest ``desired``. clock_synchronised: a time service keeps the clock.
        requests: rows answered, and failed, by what answers now, by model.
        spool_records, spool_bytes: telemetry not home yet. events_waiting: the same of events.
        bindings: what each binding did, by its name.
        twin: what is known of another agent under this name; "" when there was none of late.
        strain: whether the machine is slowed down by heat, or short of memory.
        quality: what is wrong with the input, by model; "": with the device's clock.
        last_error: what last went wrong, at ``last_error_ms``. last_error_over_ms: when that was
            seen to work again; 0: it was not.
        privacy: what noise on counts costs; None: they leave without.
        doubt: why this may be old, though the agent runs.
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
    bindings: dict[str, BindingReport] = {}
    twin: str = ""
    strain: Strain = Strain()
    quality: dict[str, tuple[str, ...]] = {}
    privacy: PrivacyReport | None = None
    last_error: Annotated[str, Meta(max_length=4000)] = ""
    last_error_ms: Count = 0
    last_error_over_ms: Count = 0
    doubt: str = ""


def model_report(
    state: State, *, transfer: Transfer | None = None, why: str = "", waits: str = ""
) -> ModelReport:
    """One model's state in the contract's words.

    ``transfer``: of the candidate, when it is being fetched. ``why``: why nothing is wanted; the
    state's own reason goes first. ``waits``: what is waited for, if not for the transfer.
    """
    wanted = state.candidate.version if state.candidate else None
    moving = transfer if transfer and transfer.version == wanted else Transfer("")
    if moving.text or (moving.version and not state.delay_s):
        waits = moving.text
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
        failure=_failure(state),
        done_bytes=moving.done_bytes,
        total_bytes=moving.total_bytes,
        bytes_per_s=moving.bytes_per_s,
        waits=waits[:_WAITS_MAX_CHARS],
        until_ms=moving.until_ms,
    )


def _failure(state: State) -> Failure | None:
    if not state.quarantine:
        return None
    last = state.quarantine[-1]
    return Failure(
        version=last.version,
        digest=last.sha256,
        reason=last.reason[:_FAILURE_REASON_MAX_CHARS],
        findings=last.findings,
    )


def failure_lines(failure: Failure) -> list[str]:
    """Why a version is not tried again, and the evidence, for a person."""
    lines = [f"{failure.version} ({failure.digest[:12]}): {failure.reason}"]
    seen = failure.findings
    if seen is None:
        return lines
    for off in seen.golden:
        rows = f" in rows {', '.join(map(str, off.rows))}" if off.rows else ""
        more = " ..." if off.wrong > len(off.rows) > 0 else ""
        far = f", by up to {off.worst:.3g}" if off.worst is not None else ""
        allowed = f" ({off.allowed:.3g} is allowed)" if off.allowed is not None else ""
        count = f"{off.wrong} of {off.values} values off{rows}{more}" if off.values else off.said
        lines.append(f"golden output {off.output}: {count}{far}{allowed}")
    if seen.ended:
        lines.append(f"self-test: {seen.ended}")
    measured = []
    if seen.latency_p99_ms:
        measured.append(f"p99 {seen.latency_p99_ms:.3g} ms{_limit(seen.latency_limit_ms, 'ms')}")
    if seen.ram_bytes:
        limit = _limit(seen.ram_limit_bytes / 1e6, "MB")
        measured.append(f"memory {seen.ram_bytes / 1e6:.1f} MB{limit}")
    if seen.requests:
        measured.append(
            f"{seen.requests} requests in {seen.seconds:.0f} s: {seen.failures} failed, "
            f"{seen.slow} too slow, {seen.stalled} without an end"
        )
    return lines + ([f"measured: {'; '.join(measured)}"] if measured else [])


def _limit(figure: float, unit: str) -> str:
    return f" (limit {figure:.4g} {unit})" if figure else ""


def model_reports(
    states: Mapping[str, State],
    transfers: Mapping[str, Transfer],
    why: Mapping[str, str],
    factory: Mapping[str, str],
    waits: Mapping[str, str],
) -> dict[str, ModelReport]:
    """Every model that has a state, or a reason to have none."""
    names = sorted({*states, *(name for name, reason in why.items() if reason)})
    reports = {}
    failures = max(_FAILURES_SHOWN - len(names) // 16, 1)
    for name in names:
        whole = model_report(
            states.get(name, State()),
            transfer=transfers.get(name),
            why=why.get(name, ""),
            waits=waits.get(name, ""),
        )
        reports[name] = replace(
            whole,
            waits=whole.waits[: max(_WAITS_ALL_MAX_CHARS // len(names), 40)],
            reason=whole.reason[: max(_REASONS_MAX_CHARS // len(names), 40)],
            quarantined=whole.quarantined[-max(_QUARANTINE_SHOWN // len(names), 1) :],
            failure=whole.failure if failures > 0 else None,
            factory=factory.get(name, ""),
        )
        failures -= whole.failure is not None
    return reports
