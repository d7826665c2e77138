"""Inference over HTTP, against MLServer, KServe, LitServe, and a server that does nothing.

    python benchmarks/serving.py [--quick] [--json FILE] [--markdown] [--write-readme] [--only NAME]

Every server answers the same request of the Open Inference Protocol (one row of 20 numbers, JSON)
with the same ONNX file; ours checks and counts every row. A peer lives in an environment of its
own, which is installed once under ~/.cache/edge-pack/peers: 100 to 400 MB each. What a request
costs is processor time of the server. The servers take turns, ratios are taken within a turn, and
their medians shown.

A third one of ours decodes, runs and encodes in the loop of the one that does nothing, and checks
and counts nothing: what is under its cost cannot be had from Python.

Each server is asked in two ways, over 1 and over 16 connections: as much as it can do (wrk), and
at one rate for all (h2load, RATE_PER_S). What a request costs depends on whether the server slept
before it: to wake up costs more than to answer nothing. So the goals are judged where all servers
sleep alike: over 1 connection at the one rate, where each sleeps before each request (as fast as
it can, the quickest one is never let sleep and the others always are), and over 16 connections as
much as it can, where none sleeps. The other two are shown.

The cost of ``predict`` without HTTP is measured as ``benchmarks/predict.py`` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import pandas as pd
import predict
from peers import http_servers
from peers.http_servers import BARE, NOTHING, OURS, PEERS, Peer, Server
from sklearn.linear_model import LogisticRegression

from edge_contract import bundle as bundles
from edge_contract.manifest import MODEL_FILE
from edge_pack import BuildConfig, build

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks/serving.py -->", "<!-- end -->"
CONNECTIONS = (1, 16)
TIMES_GOAL = {"MLServer": 20.0, "KServe": 10.0, "LitServe": 10.0}
"""Their processor time a request over ours, at least."""
NOTHING_GOAL, BARE_GOAL = 4.0, 1.5
"""Ours over that of a server that does nothing, and over the bare session in it, at most."""

SATURATED, PACED = "saturated", "paced"
JUDGED = {1: PACED, 16: SATURATED}
"""By connections; why, says the text above."""

_LABELS = {
    NOTHING.name: "a server that does nothing",
    BARE.name: "the bare session in that server, unchecked",
}

Costs = dict[str, dict[int, list[float]]]
"""Microseconds a request in each turn, by load and connections."""
Found = dict[str, dict[str, Any]]


def make_model(folder: Path) -> tuple[Path, Path, str]:
    """A small classifier as a bundle, its ONNX file, and the name of its input."""
    rows = pd.DataFrame(predict.reference(), columns=list(predict.NAMES))
    labels = (rows.iloc[:, 0] + rows.iloc[:, 1] > 0).astype(int)
    joblib.dump(LogisticRegression().fit(rows, labels), folder / "bench.joblib")
    rows.to_csv(folder / "bench.csv", index=False)
    config = BuildConfig(
        model=folder / "bench.joblib", data=folder / "bench.csv", name="bench", version="1",
        out=folder / "bench.edgepack", quantize="none", measure=False, provenance=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manifest = build(config, notice=lambda _text: None).manifest
    onnx = folder / "bench.onnx"
    onnx.write_bytes(bundles.read(config.out.read_bytes()).file(MODEL_FILE))
    return config.out, onnx, manifest.inputs[0].name


def measure(peers: Sequence[Peer], rounds: int, seconds: int, folder: Path) -> Found:
    """Start every server, load them in turns; what each costs, holds and took to start."""
    bundle, onnx, tensor = make_model(folder)
    request = http_servers.body(tensor)
    load = http_servers.Load.of(request, folder)
    for peer in peers:
        http_servers.environment(peer)
    with contextlib.ExitStack() as stack:
        servers = []
        for peer in peers:
            servers.append(Server(peer, bundle, onnx, request, folder))
            stack.callback(servers[-1].stop)
            load.saturate(servers[-1], CONNECTIONS[-1], 1)  # warm-up
        asks = {PACED: load.pace, SATURATED: load.saturate}
        costs: dict[str, Costs] = {
            peer.name: {way: {c: [] for c in CONNECTIONS} for way in asks} for peer in peers
        }
        for turn in range(rounds):
            for way, connections in itertools.product(asks, CONNECTIONS):
                for server in servers:
                    cost = asks[way](server, connections, seconds)
                    costs[server.peer.name][way][connections].append(cost)
                    said = f"turn {turn + 1} of {rounds}: {server.peer.name}, {way}"
                    _say(f"{said}, {connections} connections: {cost:.0f} us")
        return {
            server.peer.name: {
                "us": costs[server.peer.name],
                "pss_mb": server.pss_bytes() / 1e6,
                "start_s": server.start_s,
            }
            for server in servers
        }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def times_ours(found: Found, name: str, connections: int, way: str = "") -> float:
    """A server's processor time a request over ours: the median over the turns.

    ``way``: of asking; the one that is judged when "".
    """
    way = way or JUDGED[connections]
    ours, theirs = found[OURS.name]["us"][way][connections], found[name]["us"][way][connections]
    return median(other / mine for mine, other in zip(ours, theirs, strict=True))


def goals(found: Found) -> dict[str, list[Any]]:
    """What the project promises, as far as it was measured."""
    out: dict[str, list[Any]] = {}
    for connections in CONNECTIONS:
        for name, goal in TIMES_GOAL.items():
            if name in found:
                times = times_ours(found, name, connections)
                key = f"{name} over ours, {connections} connections, at least"
                out[key] = [round(times, 2), goal, times >= goal]
        for name, goal in ((NOTHING.name, NOTHING_GOAL), (BARE.name, BARE_GOAL)):
            times = 1 / times_ours(found, name, connections)
            key = f"ours over {name}, {connections} connections, at most"
            out[key] = [round(times, 2), goal, times <= goal]
    return out


def predict_goals(*, quick: bool) -> dict[str, list[Any]]:
    """The cost of one row without HTTP; prints its lines."""
    taken: dict[str, tuple[float, float, bool]] = {}
    for name, onnx in predict.models().items():
        predict.report(name, predict.measure(onnx, 20 if quick else 100, predict.BULK_ROWS), taken)
    return {f"predict, {name}, at most": list(figures) for name, figures in taken.items()}


def markdown(found: Found) -> str:
    """The README's table; of the figures in bold the goals are judged."""
    lines = [
        f"| server | CPU us a request, {http_servers.RATE_PER_S} a second, 1 / 16 connections "
        "| at full load, 1 / 16 | times ours | PSS | first answer |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        us = {
            (way, c): f"{median(taken):,.0f}"
            for way, by_connections in figures["us"].items()
            for c, taken in by_connections.items()
        }
        for c, way in JUDGED.items():
            us[way, c] = f"**{us[way, c]}**"
        paced, full = (" / ".join(us[way, c] for c in CONNECTIONS) for way in (PACED, SATURATED))
        times = " / ".join(f"{times_ours(found, name, c):.2g}" for c in CONNECTIONS)
        label = _LABELS.get(name, name)
        held, start = f"{figures['pss_mb']:.0f} MB", f"{figures['start_s']:.1f} s"
        lines.append(f"| {label} | {paced} | {full} | {times} | {held} | {start} |")
    return "\n".join(lines)


def write_readme(table: str) -> None:
    """Put the table between its markers. Raises ValueError where they are missing."""
    text = README.read_text(encoding="utf-8")
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    made, count = re.subn(pattern, lambda _found: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{README} has {count} places between {BEGIN} and {END}, not one")
    README.write_text(made, encoding="utf-8")


def main() -> None:
    """Measure all, print, write JSON and the README's table where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the README's table alone")
    parser.add_argument("--write-readme", action="store_true", help="put the table there")
    parser.add_argument("--only", action="append", default=[], help="a peer's name; repeatable")
    parser.add_argument("--turns", type=int, default=0, help="how many; 5, or 2 with --quick")
    options = parser.parse_args()
    if options.write_readme and (options.quick or options.only):
        parser.error("the README's table is of all servers, in full")
    for tool, package in http_servers.TOOLS.items():
        if shutil.which(tool) is None:
            parser.error(f"the load is {tool}'s, which is not here: apt install {package}")
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
    rounds, seconds = options.turns or (2 if options.quick else 5), 2 if options.quick else 4
    with tempfile.TemporaryDirectory() as folder:
        found = measure([OURS, NOTHING, BARE, *peers], rounds, seconds, Path(folder))
    table = markdown(found)
    print(table)
    met = goals(found)
    if not options.markdown:
        met |= predict_goals(quick=options.quick)
        for name, (figure, goal, done) in met.items():
            print(f"{'met' if done else 'NOT MET':8} {name} {goal:g}: {figure:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"figures": found, "goals": met}, indent=2) + "\n")
    if options.write_readme:
        write_readme(table)


if __name__ == "__main__":
    main()
