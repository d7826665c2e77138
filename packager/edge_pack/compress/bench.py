"""Candidates against each other on this machine: latency, load time and memory, in one child.

Guards: no candidate gets a quieter machine than another. They take turns within each round, in
one order and then the other, and float32 runs twice in each so that noise is known. Each is
loaded by itself in a fork of the child that has loaded nothing yet, for its load time and its
resident memory after the trimming that a device does. Where the system cannot fork, those two
are not known.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from edge_agent.runtime import Session, trim_memory
from edge_contract import golden as goldens
from edge_contract.golden import Array
from edge_contract.typed import json_decoder
from edge_pack import graphs, measure
from edge_pack.compress.pareto import Timing
from edge_pack.compress.storage import OPSET_MIN
from edge_pack.extras import need
from edge_pack.inference import Tensors
from edge_pack.measure import Latency

ROUNDS = 5
SECONDS_EACH = 0.02
"""For one candidate at one batch size in one round."""
CALLS_MIN, CALLS_MAX = 3, 400
LOADS = 3
_EMPTY = "empty.onnx"

_CHILD = """
import sys
from edge_contract.ports.command import run
from edge_pack.compress.bench import child
run(lambda: child(sys.argv[1]))
"""


class Alone(Struct, frozen=True, kw_only=True):
    """A candidate loaded by itself; ``rss_bytes`` None where it is not known."""

    load_ms: float
    rss_bytes: int | None


class _Request(Struct, frozen=True, kw_only=True):
    models: tuple[str, ...]
    feeds: dict[int, tuple[Array, ...]]


class _Reply(Struct, frozen=True, kw_only=True):
    alone: tuple[Alone | None, ...]
    rounds: tuple[dict[int, tuple[float, ...]], ...]
    latency: tuple[tuple[Latency, ...], ...]


@dataclass(frozen=True)
class Benched:
    """What the child saw, candidate by candidate; ``again`` is the first one's second run."""

    timings: tuple[Timing, ...]
    again: Timing
    alone: tuple[Alone | None, ...]
    latency: tuple[tuple[Latency, ...], ...]


def run(models: Sequence[bytes], feeds: Mapping[int, Tensors]) -> Benched:
    """Measure models against the first of them.

    Args:
        feeds: batch size -> the input tensors of one call.

    Raises MachineFault when the child fails. Interrupted, it leaves no process and no file.
    """
    packed = {
        batch: tuple(goldens.pack(name, value) for name, value in feed.items())
        for batch, feed in feeds.items()
    }
    with tempfile.TemporaryDirectory(prefix="edge-pack-") as folder:
        names = [f"{number}.onnx" for number in range(len(models))]
        for name, model in zip(names, models, strict=True):
            (Path(folder) / name).write_bytes(model)
        (Path(folder) / _EMPTY).write_bytes(_identity())
        request = _Request(models=tuple(names), feeds=packed)
        (Path(folder) / "request.json").write_bytes(msgspec.json.encode(request))
        said = measure.run_child(_CHILD, folder, what="measuring the candidates")
    reply = json_decoder(_Reply).decode(said)
    timings = [Timing(rounds) for rounds in reply.rounds]
    return Benched(tuple(timings[:-1]), timings[-1], reply.alone, reply.latency)


def _identity() -> bytes:
    """A model that gives its one number back."""
    helper = need("onnx.helper", "measuring candidates")
    x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    opset = helper.make_opsetid("", OPSET_MIN)
    return graphs.serialise(helper.make_model(graph, opset_imports=[opset], ir_version=8))


def child(folder: str) -> None:
    """Measure what lies in ``folder`` and print the figures as JSON."""
    request = json_decoder(_Request).decode((Path(folder) / "request.json").read_bytes())
    feeds = {
        batch: {array.name: goldens.unpack(array) for array in arrays}
        for batch, arrays in request.feeds.items()
    }
    models = [(Path(folder) / name).read_bytes() for name in request.models]
    first = feeds[min(feeds)]
    empty = (Path(folder) / _EMPTY).read_bytes()
    alone = tuple(_in_fork(model, first, empty) for model in models)
    sessions = [Session(model) for model in (*models, models[0])]
    times = _rounds(sessions, feeds)
    reply = _Reply(
        alone=alone,
        rounds=tuple(
            {batch: tuple(float(np.median(times[at, batch, turn])) for turn in range(ROUNDS))
             for batch in feeds}
            for at in range(len(sessions))
        ),
        latency=tuple(
            tuple(_latency(batch, [times[at, batch, turn] for turn in range(ROUNDS)])
                  for batch in feeds)
            for at in range(len(models))
        ),
    )  # fmt: skip
    sys.stdout.buffer.write(msgspec.json.encode(reply))


def _rounds(
    sessions: Sequence[Session], feeds: Mapping[int, Tensors]
) -> dict[tuple[int, int, int], list[float]]:
    """Microseconds of each call, by (session, batch, round)."""
    times: dict[tuple[int, int, int], list[float]] = {}
    for batch, feed in feeds.items():
        for session in sessions:
            session.run(feed)
        for turn in range(ROUNDS):
            order = range(len(sessions)) if turn % 2 == 0 else reversed(range(len(sessions)))
            for at in order:
                times[at, batch, turn] = _calls(sessions[at], feed)
    return times


def _calls(session: Session, feed: Tensors) -> list[float]:
    call = partial(session.call, feed)
    call()
    found: list[float] = []
    end = time.perf_counter() + SECONDS_EACH
    while len(found) < CALLS_MIN or (time.perf_counter() < end and len(found) < CALLS_MAX):
        began = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - began) / 1000)
    return found


def _latency(batch: int, rounds: Sequence[Sequence[float]]) -> Latency:
    every = np.concatenate([np.asarray(times) for times in rounds])
    p50, p99 = (round(float(at), 2) for at in np.percentile(every, [50, 99]))
    return Latency(batch=batch, p50_us=p50, p99_us=p99, calls=len(every))


def _in_fork(model: bytes, feed: Tensors, empty: bytes) -> Alone | None:
    """Load the model in a fork of this process, which has loaded none yet."""
    if not hasattr(os, "fork"):
        return None
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 1
        with suppress(BaseException):
            os.write(write, msgspec.json.encode(_alone(model, feed, empty)))
            status = 0
        os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return json_decoder(Alone).decode(said) if said else None


def _ready(empty: bytes) -> int | None:
    """Resident bytes once the runtime has set up what it keeps for the first session it sees."""
    Session(empty).run({"x": np.zeros(1, dtype=np.float32)})
    trim_memory()
    return measure.resident()


def _alone(model: bytes, feed: Tensors, empty: bytes) -> Alone:
    before = _ready(empty)
    took = []
    for _ in range(LOADS):
        began = time.perf_counter()
        session = Session(model)
        took.append((time.perf_counter() - began) * 1000)
        if len(took) == 1:
            session.run(feed)
            trim_memory()
            after = measure.resident()
    rss = after - before if after is not None and before is not None else None
    return Alone(load_ms=round(min(took), 3), rss_bytes=rss)
