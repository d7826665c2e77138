"""A trial ends by what real requests showed: failures, latency, memory, requests without an end."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from edge_agent import trial
from edge_agent.report import model_reports
from edge_agent.steps import Evidence, Phase, Quarantined, State, TrialRules
from edge_contract import messages
from edge_contract.messages import MAX_BYTES, Findings, Hardware, Mismatch, Reported
from edge_contract.telemetry import LATENCY_BUCKETS

RULES = TrialRules(requests=100, seconds=60, max_error_rate=0.01, deadline_s=300)
MB = 10**6
SEEN = Evidence(
    "a" * 64, requests=50, failures=0, elapsed_s=5.0, latency_limit_ms=5.0,
    ram_limit_bytes=50 * MB,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({}, "wait", ""),
        ({"requests": 100}, "commit", ""),
        ({"elapsed_s": 61.0}, "commit", ""),
        ({"failures": 1}, "wait", ""),
        ({"failures": 2}, "fail", "2 failures are over 0.01 of 100"),
        ({"stalled": 1}, "fail", "a request did not come to an end"),
        ({"stalled": 1, "requests": 1000}, "fail", "a request did not come to an end"),
        ({"slow": 2}, "wait", ""),  # one pause of the machine
        ({"slow": 3}, "fail", "3 rows took longer than 5 ms"),
        ({"slow": 3, "requests": 1000}, "commit", ""),  # within the 99th percentile
        ({"slow": 11, "requests": 1000}, "fail", "11 rows took longer"),
        ({"ram_bytes": 50 * MB + trial.AGENT_BYTES}, "wait", ""),
        ({"ram_bytes": 51 * MB + trial.AGENT_BYTES}, "fail", "MB of memory are over 50.0 MB"),
        ({"ram_bytes": 900 * MB, "ram_limit_bytes": 0}, "wait", ""),
        ({"elapsed_s": 301.0, "failures": 1}, "fail", ""),
    ],
)
def test_the_verdict_and_what_was_over_its_limit(
    change: dict[str, Any], verdict: str, said: str
) -> None:
    seen = replace(SEEN, **change)
    assert trial.judge(seen, RULES) == verdict
    assert said in trial.describe(seen, RULES)
    found = trial.findings(seen)
    assert (found.requests, found.slow, found.stalled) == (seen.requests, seen.slow, seen.stalled)
    assert found.latency_limit_ms == 5.0


def test_rows_slower_than_the_limit_are_counted_and_batches_by_their_rows(tiny_bundle: Any) -> None:
    import numpy as np

    from edge_agent import Model
    from edge_agent.telemetry import Window
    from edge_contract import bundle as bundles

    model = Model.from_bundle(bundles.read(tiny_bundle()))
    batches: list[Any] = []

    class Taker:
        def observe(self, batch: Any, labels: Any, scores: Any, latency_ns: int) -> None:
            batches.append((batch, labels, scores))

    model.observer = Taker()
    model.predict({"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0})
    model.predict(np.zeros((10, 4)))
    window = Window(model.manifest, model.profile, latency_max_ms=2.0)
    one, ten = batches
    for latency_ms in (1, 1.9, 2.1, 50):
        window.observe(*one, int(latency_ms * 1e6))
    window.observe(*ten, int(15e6))  # 1.5 ms a row
    assert window.totals.slow == 2
    window.observe(*ten, int(25e6))
    assert window.totals.slow == 12
    window.close()
    assert window.totals.slow == 12  # over all periods
    assert 50 <= window.latency_p99_ms <= 50 * 1.42
    assert Window(model.manifest, None).latency_p99_ms == 0.0
    assert LATENCY_BUCKETS > 10


def worst() -> State:
    """A state with all that a failure can leave."""
    mismatch = Mismatch(
        output='"' * 60, said='"' * 200, wrong=2**50, values=2**50, rows=(2**50,) * 8,
        worst=1.2345678901234567e300, allowed=1.2345678901234567e300,
    )  # fmt: skip
    findings = Findings(
        golden=(mismatch,) * 4, ended='"' * 200, latency_p50_ms=1 / 3, latency_p99_ms=1 / 3,
        latency_limit_ms=1 / 3, ram_bytes=2**50, ram_limit_bytes=2**50, requests=2**50,
        failures=2**50, slow=2**50, stalled=2**50, seconds=1 / 3,
    )  # fmt: skip
    entry = Quarantined(sha256="a" * 64, version="v" * 64, reason="r" * 1000, findings=findings)
    return State(phase=Phase.IDLE, reason="r" * 1000, quarantine=(entry,) * 32)


@pytest.mark.parametrize("models", [1, 8, 256])
def test_the_evidence_of_any_number_of_models_stays_within_a_reports_bound(models: int) -> None:
    states = {f"model-{i:03d}": worst() for i in range(models)}
    reported = Reported(
        boot=1, at_ms=1, agent="1",
        hardware=Hardware(
            machine="m", cpus=4, ram_bytes=1, system="s", python="3", onnxruntime="1"
        ),
        models=model_reports(states, *[{}] * 4),
    )  # fmt: skip
    data = messages.encode(reported)
    assert len(data) <= MAX_BYTES[Reported]
    assert messages.decode(data, Reported) == reported
    assert reported.models["model-000"].failure.findings is not None


def test_an_event_with_all_evidence_stays_within_its_bound() -> None:
    findings = worst().quarantine[0].findings
    assert findings is not None
    event = messages.Event(
        boot=2**50, seq=2**50, at_ms=2**50, kind="self-test-failed", model="m" * 64,
        version="v" * 64, detail="r" * 1000, findings=findings,
    )  # fmt: skip
    assert len(messages.encode(event)) <= MAX_BYTES[messages.Event]
