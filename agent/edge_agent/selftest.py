"""The self-test of a slot, in a process of its own: ``python -m edge_agent.selftest SLOT``.

Guards: a model that crashes the runtime, eats the memory or never returns takes its own process
down and not the model that answers. The child may take no more memory than it is given, is first
in line for the kernel's OOM killer, last in line for the processor, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from edge_agent.accept import strictest
from edge_agent.notify import VARIABLES
from edge_contract import wire
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.manifest import Runtime
from edge_contract.messages import Findings, Mismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_agent.model import Model

REPORT_MAX_BYTES = 64 * 1024
FINDINGS_MAX = 10
FENCE_BYTES = 64 * 1024**2
GOLDEN_MAX = 4
"""Of the outputs that are off, so many are described."""
ROUNDS = 3
NO_ROOM = "there was no room in memory for the test"
"""How a test ended that says nothing of the slot."""
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
_OURS = ("EDGE_AGENT_PASSWORD", *VARIABLES)
"""Variables that a child has no business with."""


class Limits(Struct, frozen=True, kw_only=True):
    """What a candidate may cost. 0: anything.

    Attributes:
        timeout_s: the whole test, starting the process included.
        runs: latency is measured over this many runs.
        latency_max_ms: the 99th percentile of a run.
        ram_bytes_max: resident memory gained by loading and running the model.
    """

    timeout_s: float = 120.0
    runs: int = 50
    latency_max_ms: float = 0.0
    ram_bytes_max: int = 0

    def within(self, budget: Runtime) -> Limits:
        """These limits and the manifest's: of each the stricter one."""
        return replace(
            self,
            latency_max_ms=float(strictest(self.latency_max_ms, budget.latency_ms_max)),
            ram_bytes_max=int(strictest(self.ram_bytes_max, budget.ram_bytes_max)),
        )


class Report(Struct, frozen=True, kw_only=True):
    """What the self-test saw.

    Attributes:
        findings: what is wrong; empty when the candidate passed.
        golden: the outputs that were off. ended: how the process ended when it gave no report.
        load_ms: reading, checking and loading the slot.
        latency_p50_ms, latency_p99_ms: of one run on golden inputs, a row at a time where the
            model takes any number of rows.
        ram_bytes: resident memory that the model costs.
    """

    schema: int = 1
    findings: tuple[str, ...] = ()
    golden: tuple[Mismatch, ...] = ()
    ended: str = ""
    load_ms: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0
    ram_bytes: int = 0

    @property
    def passed(self) -> bool:
        """Nothing was found wrong."""
        return not self.findings

    def seen(self, limits: Limits) -> Findings:
        """What is reported of it, with the limits that held."""
        return Findings(
            golden=self.golden,
            ended=self.ended[:200],
            latency_p50_ms=self.latency_p50_ms,
            latency_p99_ms=self.latency_p99_ms,
            latency_limit_ms=limits.latency_max_ms,
            ram_bytes=self.ram_bytes,
            ram_limit_bytes=limits.ram_bytes_max,
        )

    def __str__(self) -> str:
        if self.findings:
            return "; ".join(self.findings)
        return (
            f"golden samples reproduced; load {self.load_ms:.0f} ms, p50 "
            f"{self.latency_p50_ms:.3g} ms, p99 {self.latency_p99_ms:.3g} ms, "
            f"{self.ram_bytes / 1e6:.1f} MB"
        )


class Stopped(Exception):
    """The test was called off."""


# -- the parent ---------------------------------------------------------------------------------


def prove(slot: Path, limits: Limits, stop: Event) -> Report:
    """Test the slot in a child process and return what was seen.

    Raises:
        Stopped: ``stop`` was set meanwhile; the child is gone.
        MachineFault: no process could be started; nothing is known of the slot.
    """
    command = [
        sys.executable, "-P", "-m", "edge_agent.selftest", str(slot), "--json",
        "--runs", str(limits.runs), "--parent", str(os.getpid()),
        "--latency-max-ms", str(limits.latency_max_ms),
        "--ram-bytes-max", str(limits.ram_bytes_max),
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key not in _OURS}
    try:
        child = subprocess.Popen(  # noqa: S603 - our own module by our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise MachineFault(f"cannot start the self-test: {error.strerror or error}") from error
    deadline = time.monotonic() + limits.timeout_s
    try:
        while True:
            try:
                out, err = child.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    raise Stopped from None
                if time.monotonic() > deadline:
                    return _ended(f"no result within {limits.timeout_s:g} s")
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    return _judge(_read(child.returncode, out, err), limits)


def _read(code: int, out: bytes, err: bytes) -> Report:
    """The child's report, or one that says how the child ended without any."""
    with contextlib.suppress(InputFault):
        return wire.decode_json(out, Report, size_max=REPORT_MAX_BYTES)
    if code < 0:
        with contextlib.suppress(ValueError):
            return _ended(f"the test process was killed: {signal.Signals(-code).name}")
    lines = err.decode(errors="replace").strip().splitlines()
    said = lines[-1][:300] if lines else "it said nothing"
    return _ended(f"the test process ended with code {code}: {said}")


def _ended(how: str) -> Report:
    return Report(findings=(how,), ended=how)


def _judge(report: Report, limits: Limits) -> Report:
    """The report with what exceeds the limits among the findings."""
    over = []
    if limits.latency_max_ms and report.latency_p99_ms > limits.latency_max_ms:
        over.append(
            f"p99 latency {report.latency_p99_ms:.3g} ms is over {limits.latency_max_ms:g} ms"
        )
    if limits.ram_bytes_max and report.ram_bytes > limits.ram_bytes_max:
        over.append(f"{report.ram_bytes} bytes of memory are over {limits.ram_bytes_max}")
    return replace(report, findings=(*report.findings, *over))


# -- the child ----------------------------------------------------------------------------------


def examine(
    slot: Path,
    runs: int,
    now_ns: Callable[[], int] = time.perf_counter_ns,
    *,
    latency_max_ms: float = 0.0,
) -> Report:
    """Test the slot in this process. Only EdgeError findings are caught: a crash is a crash.

    Args:
        latency_max_ms: when the runs take longer, they are measured again, up to ``ROUNDS`` times:
            this process waits for every other, and what that costs is not the model's.
    """
    from edge_agent import hardware  # noqa: PLC0415 - the parent needs neither
    from edge_agent.memory import NoRoom  # noqa: PLC0415
    from edge_agent.model import Model  # noqa: PLC0415
    from edge_contract.golden import str_of  # noqa: PLC0415

    before = hardware.rss_bytes()
    begin = now_ns()
    try:
        model = Model.from_slot(slot)
        load_ms = (now_ns() - begin) / 1e6
        golden = model.golden_mismatches()
        if not golden:
            model.check_answers()
        times = [0]
        for _ in range(ROUNDS if not golden else 0):
            times = sorted(_time(model, runs, now_ns))
            if not latency_max_ms or _p99(times) / 1e6 <= latency_max_ms:
                break
    except NoRoom as error:
        return Report(findings=(error.what,), ended=NO_ROOM)
    except EdgeError as error:
        return Report(findings=(error.what,))
    return Report(
        findings=tuple(str_of(mismatch) for mismatch in golden)[:FINDINGS_MAX],
        golden=golden[:GOLDEN_MAX],
        load_ms=load_ms,
        latency_p50_ms=times[len(times) // 2] / 1e6,
        latency_p99_ms=_p99(times) / 1e6,
        ram_bytes=max(hardware.rss_bytes() - before, 0),
    )


def _p99(times: list[int]) -> int:
    """Of sorted figures."""
    return times[min(len(times) * 99 // 100, len(times) - 1)]


def _time(model: Model, runs: int, now_ns: Callable[[], int]) -> list[int]:
    """Nanoseconds of each run."""
    feeds = _feeds(model)
    times = []
    for i in range(runs):
        feed = feeds[i % len(feeds)]
        begin = now_ns()
        model.run(feed)
        times.append(now_ns() - begin)
    return times


def _feeds(model: Model) -> list[dict[str, NDArray[Any]]]:
    """Golden inputs a row at a time where the model takes any number of rows, else whole."""
    from edge_agent.model import one_row  # noqa: PLC0415
    from edge_contract.golden import unpack  # noqa: PLC0415

    assert model.golden is not None  # without golden samples there is a finding
    whole = {array.name: unpack(array) for array in model.golden.inputs}
    return one_row(model.manifest, whole)


def _stand_back(parent: int) -> None:
    """Die with the parent, be killed first when memory runs out, run when nobody else wants."""
    if parent:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew that we care
            sys.exit(1)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError):
        os.nice(10)


def _as_the_agent() -> None:
    """Memory is taken and given back as where the model is to answer."""
    from edge_agent import runtime  # noqa: PLC0415

    runtime.free_at_once()


def _fence(ram_bytes_max: int) -> None:
    """Let this process take so much more memory, or what is free, and not a byte beyond.

    Twice the limit: what a load needs for a moment is not held against the model; what it keeps is
    measured. RLIMIT_DATA counts private writable memory, not what is mapped from files or merely
    reserved (getrlimit(2); from Linux 4.7 on also what mmap gives).
    """
    import resource  # noqa: PLC0415 - there is none on Windows

    from edge_agent import hardware  # noqa: PLC0415

    allowed = min(2 * ram_bytes_max + FENCE_BYTES, hardware.available_bytes())
    if not ram_bytes_max:
        allowed = hardware.available_bytes()
    limit = hardware.data_bytes() + allowed
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> int:
    """Test one slot and print what was seen; 0: passed, 1: not."""
    import argparse  # noqa: PLC0415 - the agent itself reads no arguments here

    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.selftest", description="Test one slot on this machine."
    )
    parser.add_argument("slot", type=Path, help="folder of a bundle, as the agent keeps it")
    parser.add_argument("--runs", type=int, default=50, help="runs that latency is taken from")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--parent", type=int, default=0, help="end when this process has ended")
    parser.add_argument("--latency-max-ms", type=float, default=0, help="measure again if over it")
    parser.add_argument("--ram-bytes-max", type=int, default=0, help="memory it may cost; 0: all")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    _stand_back(arguments.parent)
    _as_the_agent()
    _fence(arguments.ram_bytes_max)
    report = examine(arguments.slot, arguments.runs, latency_max_ms=arguments.latency_max_ms)
    text = wire.encode_json(report).decode() if arguments.json else str(report)
    sys.stdout.write(text + "\n")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
