"""What an agent costs a device that has other work: time to the first answer, idle CPU, memory.

    python benchmarks/footprint.py [--quick] [--json FILE]

Everything runs from an install as a device has it (``install.install``: ``locks/device.txt``, a
wheel of this tree, and what ``[http]`` brings): a workshop's environment holds packages that TUF's
signers import when they find them, 15 MB of them. Needs an index.

Cold start: a process that loads an installed slot, checks every byte of it and answers one row,
against one that imports numpy and ONNX Runtime, loads the same model file and runs it; processor
time, medians of runs that alternate. A packed bundle is decoded besides: shown, without a goal.

Idle: `edge-agent run` with a model in place, connected to a broker, HTTP on, nobody asking; the
processor time of all its threads by /proc/PID/task/*/schedstat.

Memory: PSS (proc(5): pages that are shared count by their share) of that agent, against a bare
process with the same session that runs beside it, both after one answer: right after the model was
fetched, for which the bundle's codec was loaded, and after a restart, as an agent is for weeks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import install
import swap

from edge_agent import config as configs
from edge_agent.pull import enroll
from edge_contract import bundle as bundles
from edge_contract.manifest import MODEL_FILE
from edge_release import create
from edge_release.repository import Repository

START_GOAL = 1.3
IDLE_GOAL_PERCENT = 0.2
PSS_GOAL_MB = 12.0
SETTLE_S = 15.0
DEADLINE_S = 120.0

BARE = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
tensor = session.get_inputs()[0]
dtype = np.float64 if tensor.type == "tensor(double)" else np.float32
session.run(None, {tensor.name: np.zeros((1, 20), dtype)})
"""
OURS = """
import sys
from pathlib import Path
from edge_agent import Model
Model.from_slot(Path(sys.argv[1])).predict([0.0] * 20)
"""
PACKED = OURS.replace("from_slot", "open")
WAIT = "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"


def main() -> None:
    """Measure, print, and write the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer starts, 20 s of idleness")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    arguments = parser.parse_args()
    starts, idle_s = (5, 20.0) if arguments.quick else (21, 120.0)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = device_python(folder)
        data = swap.bundle(folder, "1.0", 0)
        ratio = cold_start(python, folder, data, starts)
        percent, fetched_mb, restarted_mb = at_rest(python, folder, data, idle_s)
    goals = {
        "cold start / import and load": (ratio, START_GOAL, ratio <= START_GOAL),
        "idle CPU, percent": (percent, IDLE_GOAL_PERCENT, percent < IDLE_GOAL_PERCENT),
    }
    for when, more_mb in (("after a fetch", fetched_mb), ("after a restart", restarted_mb)):
        name = f"PSS above a bare session {when}, MB"
        goals[name] = (more_mb, PSS_GOAL_MB, more_mb <= PSS_GOAL_MB)
    for what, (figure, goal, met) in goals.items():
        print(f"{'met' if met else 'NOT MET':8} {what}: {figure:.2f}, goal {goal:g}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def device_python(folder: Path) -> Path:
    """The Python of a device's install with HTTP."""
    python = install.install(folder)
    words = ("pip", "install", "--quiet", "--compile-bytecode", "--python", python)
    install.run(install.UV, *words, "httptools", "uvloop")
    return python


# -- cold start ---------------------------------------------------------------------------------


def cold_start(python: Path, folder: Path, data: bytes, runs: int) -> float:
    """Processor time to the first answer, ours by bare."""
    slot, model = unpack(folder / "slot", data), folder / "bare.onnx"
    model.write_bytes((slot / MODEL_FILE).read_bytes())
    programs = {
        "bare": (BARE, model),
        "ours": (OURS, slot),
        "packed": (PACKED, folder / "1.0.edgepack"),
    }
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(runs + 1):
        for name, (program, path) in programs.items():
            seconds = processor_s([python, "-c", program, path])
            if turn:  # in the first one files come from the disk
                taken[name].append(seconds)
    bare, ours, packed = (1e3 * statistics.median(taken[name]) for name in programs)
    print(f"first answer: {ours:.0f} ms of processor time; {packed:.0f} ms from a packed bundle")
    print(f"import, load and run of ONNX Runtime alone: {bare:.0f} ms")
    return ours / bare


def unpack(slot: Path, data: bytes) -> Path:
    """A bundle as it lies on a device: every member decoded."""
    bundle = bundles.read(data)
    slot.mkdir()
    (slot / bundles.MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
    for file in bundle.manifest.files:
        (slot / file.name).write_bytes(bundle.file(file.name))
    return slot


def processor_s(words: list[str | Path]) -> float:
    """User and system time of a command that must end well."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# -- at rest ------------------------------------------------------------------------------------


def at_rest(python: Path, folder: Path, data: bytes, idle_s: float) -> tuple[float, float, float]:
    """Percent of one core that an idle agent takes, and its MB above a bare session.

    The MB after the fetch, and after a restart; the percent after the restart.
    """
    with swap.broker(folder) as url:
        create(folder / "keys", "home", now=datetime.now(UTC))
        publisher = Repository(folder / "keys")
        swap.publish(publisher, url, data)
        path, port = swap.settings(folder, url), free_port()
        path.write_text(path.read_text() + f'[http]\nlisten = "127.0.0.1:{port}"\n')
        enroll(configs.load(path, {}), publisher.shelf.read().files["1.root.json"], "")
        bare = [python, "-c", BARE + WAIT, folder / "bare.onnx"]
        with subprocess.Popen(
            bare, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as theirs:
            try:
                assert theirs.stdout is not None
                theirs.stdout.readline()
                with running(python, path, port) as pid:
                    fetched = pss_mb(pid) - pss_mb(theirs.pid)
                with running(python, path, port) as pid:
                    percent = idle_percent(pid, idle_s)
                    mine, bare_mb = pss_mb(pid), pss_mb(theirs.pid)
            finally:
                theirs.kill()
    print(f"at rest: {percent:.3f} % of a core; PSS {mine:.1f} MB, bare session {bare_mb:.1f} MB")
    return percent, fetched, mine - bare_mb


@contextmanager
def running(python: Path, path: Path, port: int) -> Iterator[int]:
    """The process of an agent that answers, and then had time to let go of what it needed."""
    log = path.with_name("agent.log")
    with (
        log.open("w") as out,
        subprocess.Popen(
            [python, "-m", "edge_agent", "run", "--config", path], stdout=out, stderr=out
        ) as agent,
    ):
        try:
            until(lambda: answers(port), f"an answer; {log.read_text()}")
            time.sleep(SETTLE_S)  # the trial ends, what was fetched is let go of
            yield agent.pid
        finally:
            agent.terminate()


def answers(port: int) -> bool:
    """Whether the model answers over HTTP."""
    body = json.dumps(swap.ROW).encode()
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/predict/{swap.MODEL}", body, 5
        ) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def until(ready: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    end = time.monotonic() + DEADLINE_S
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come within {DEADLINE_S:g} s")
        time.sleep(0.1)


def idle_percent(pid: int, seconds: float) -> float:
    """Processor time of all threads of a process, of one core."""
    before, begin = running_ns(pid), time.monotonic_ns()
    time.sleep(seconds)
    return 100 * (running_ns(pid) - before) / (time.monotonic_ns() - begin)


def running_ns(pid: int) -> int:
    """Time that a process's threads have been on a processor (proc(5), schedstat)."""
    each = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in each)


def pss_mb(pid: int) -> float:
    """Proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Pss:"))


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
