"""The main job, end to end, on real data: what ``make demo`` runs.

A camera looks at a utility meter and reads its digits: 8x8 grey values, from the UCI digits that
ship with scikit-learn. Everything below is an ordinary public command (``edge-pack``,
``edge-agent``, ``edge-fleet``) or MQTT message; this script only types them and reads the answers.

It leaves its files in ``demo-run/`` to be looked at, and no process behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import joblib
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_contract import broker_url
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics

FLEET, MODEL, CHANNEL = "meters", "digits", "stable"
DEVICES = ("cellar", "garage", "rooftop")
DIRTY_DEVICE, DIRTY_PIXEL, DIRTY_BY = "rooftop", "pixel_2_3", 6.0
FOLDER = Path("demo-run")
BIN = Path(sys.executable).parent
WAIT_S = 300
"""Of each step: a machine that is busy with other work may take it, an idle one takes seconds."""
DB = "sqlite:///fleet.db"
ROOT = "keys/repository/metadata/1.root.json"
CONSOLE = Console(highlight=False, soft_wrap=True)


class Failed(Exception):
    """A step did not do what it should: the demo ends with exit code 1."""


# -- typing commands ---------------------------------------------------------------------------


def command(*words: str, show: bool = False) -> None:
    """Run one public command to its end; ``show`` what it printed."""
    CONSOLE.print(f"  [dim]$ {' '.join(words)}[/dim]")
    printed = _finished(*words)
    if show:
        CONSOLE.print(textwrap.indent(printed, "  "), markup=False, end="")


def ask(*words: str) -> Any:
    """A quiet command with ``--json``: what a script of one's own would read."""
    return json.loads(_finished(*words, "--json"))


def _finished(*words: str) -> str:
    """What a command printed. Raises Failed when its exit code is not 0."""
    process: subprocess.Popen[str] | None = None
    try:
        with INTERRUPTS.held():
            process = spawn(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate()
    except BaseException:
        if process:
            process.kill()
            process.wait()
        raise
    if process.returncode:
        raise Failed(f"{' '.join(words[:2])} ended with {process.returncode}:\n{err}{out}")
    return str(out)


class Interrupts:
    """Ctrl-C and SIGTERM as KeyboardInterrupt, but never between a process's start and its name.

    An interrupt within ``subprocess.Popen`` would leave a process that nobody knows of.
    """

    def __init__(self) -> None:
        self._held = self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if not self._held:
            raise KeyboardInterrupt
        self._came = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within this, an interrupt waits."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt


INTERRUPTS = Interrupts()


def spawn(*words: str, **options: Any) -> subprocess.Popen[Any]:
    """Start one of our commands in the demo's folder. Call within ``INTERRUPTS.held``."""
    name, *rest = words
    return subprocess.Popen([BIN / name, *rest], cwd=FOLDER, stdin=subprocess.DEVNULL, **options)


class Services:
    """Long-running commands, each with a log beside it, all ended on the way out."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, title: str, *words: str) -> None:
        """Start ``words`` in the background; its output goes to ``<title>.log``."""
        CONSOLE.print(f"  [dim]$ {' '.join(words)} &[/dim]")
        with (FOLDER / f"{title}.log").open("wb") as log, INTERRUPTS.held():
            self.running[title] = spawn(*words, stdout=log, stderr=subprocess.STDOUT)

    def check(self) -> None:
        """Raise when one of them ended by itself."""
        for title, process in self.running.items():
            if process.poll() is not None:
                log = (FOLDER / f"{title}.log").read_text()[-2000:]
                raise Failed(f"{title} ended with {process.returncode}:\n{log}")

    def stop(self) -> None:
        """End all, agents first and the broker last; kill what does not go within 10 s."""
        for process in reversed(list(self.running.values())):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


def wait_for(services: Services, what: str, ready: Callable[[], Any]) -> Any:
    """Poll ``ready`` until it returns something true; fail after ``WAIT_S`` seconds."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        services.check()
        found = ready()
        if found:
            return found
        time.sleep(0.2)
    raise Failed(f"{what} did not happen within {WAIT_S} s; see the logs in {FOLDER}/")


@contextlib.contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """Announce a step and say how long it took."""
    CONSOLE.print(f"\n[bold]{number}. {title}[/bold]")
    started = time.monotonic()
    yield
    CONSOLE.print(f"  [green]done[/green] in {time.monotonic() - started:.1f} s")


# -- asking a device over MQTT -----------------------------------------------------------------


class Questions:
    """Sends rows to devices' ``in/<model>`` topics and waits for the answers."""

    def __init__(self, broker: str) -> None:
        self.topics = Topics(FLEET)
        self.answers: dict[bytes, dict[str, Any]] = {}
        self.arrived = threading.Condition()
        self.reply = "demo/answers"
        config = LinkConfig(broker_url.parse(broker), client_id="demo-questions")
        self.link = Link(config, on_message=self._on_answer)
        self.link.start(timeout_s=10)
        self.link.subscribe([self.reply]).wait(10)

    def _on_answer(self, message: Message) -> None:
        with self.arrived:
            self.answers[message.correlation] = json.loads(message.payload)
            self.arrived.notify_all()

    def ask(self, device: str, rows: list[dict[str, float]]) -> list[dict[str, Any]]:
        """The predictions of ``rows``, one message, in order."""
        number = os.urandom(8)
        self.link.publish(
            self.topics.requests(device, MODEL),
            json.dumps({"rows": rows}).encode(),
            response_topic=self.reply,
            correlation=number,
        )
        with self.arrived:
            if not self.arrived.wait_for(lambda: number in self.answers, timeout=20):
                raise Failed(f"{device} did not answer within 20 s")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise Failed(f"{device} answered with an error: {answer['error']}")
        return [prediction | {"version": answer["version"]} for prediction in answer["predictions"]]

    def close(self) -> None:
        """Disconnect."""
        self.link.stop()


# -- the steps ---------------------------------------------------------------------------------


def train() -> tuple[pd.DataFrame, pd.Series]:
    """Train two models, write their training rows, return held-out rows and their labels."""
    digits = load_digits()
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    table = pd.DataFrame(digits.data, columns=names)
    order = np.random.default_rng(20).permutation(len(table))
    training, held_out = order[:1000], order[1000:]
    for version, model in (
        (
            "1.0",
            make_pipeline(StandardScaler(), MLPClassifier((96,), max_iter=400, random_state=1)),
        ),
        ("2.0", ExtraTreesClassifier(60, random_state=1)),
    ):
        model.fit(table.iloc[training], digits.target[training])
        joblib.dump(model, FOLDER / f"{MODEL}-{version}.joblib")
        accuracy = model.score(table.iloc[held_out], digits.target[held_out])
        steps = type(model).__name__ if version != "1.0" else "StandardScaler + MLPClassifier"
        CONSOLE.print(f"  version {version}: {steps}, {accuracy:.1%} right on {len(held_out)} rows")
    table.iloc[training].assign(digit=digits.target[training]).to_csv(
        FOLDER / "training.csv", index=False
    )
    held = table.iloc[held_out].reset_index(drop=True)
    return held, pd.Series(digits.target[held_out])


def build(version: str) -> str:
    """One model into one signed bundle; print what it cost and what it proved."""
    out = f"{MODEL}-{version}.edgepack"
    command(
        "edge-pack", "build", f"{MODEL}-{version}.joblib", "--data", "training.csv",
        "--target", "digit", "--name", MODEL, "--version", version, "--keys", "keys", "-o", out,
    )  # fmt: skip
    command("edge-pack", "verify", out, "--keys", "keys")
    manifest = ask("edge-pack", "inspect", out)["manifest"]
    parity, stock = manifest["parity"], manifest["compression"]["stock_bytes"]
    size = (FOLDER / out).stat().st_size
    original = (FOLDER / f"{MODEL}-{version}.joblib").stat().st_size
    model = next(file for file in manifest["files"] if file["name"] == "model.onnx")
    measured = json.loads((FOLDER / f"{MODEL}-{version}.measured.json").read_text())
    ours, theirs = measured["figures"]["latency"][0], measured["original"][0]
    CONSOLE.print(
        f"  {original:,} B pickle, {stock:,} B as plain ONNX -> {model['size']:,} B model "
        f"({model['size'] / stock:.1%} of that); {size:,} B with manifest, profile and samples"
    )
    CONSOLE.print(
        f"  against the original: {parity['flips']} of {parity['rows']} labels changed, "
        f"probabilities differ by at most {parity['diff_max']:.2g}"
    )
    CONSOLE.print(
        f"  one row takes {ours['p50_us'] / 1000:.3f} ms here, scikit-learn "
        f"{theirs['p50_us'] / 1000:.1f} ms; loads in {measured['figures']['load_ms']:.0f} ms"
    )
    changed = f"{parity['flips']} of {parity['rows']} labels changed"
    return f"{size:,} B, model {model['size'] / stock:.1%} of plain ONNX, {changed}"


def publish(version: str, broker: str) -> float:
    """Publish a bundle and return when."""
    started = time.monotonic()
    command(
        "edge-pack", "publish", f"{MODEL}-{version}.edgepack", "--broker", broker,
        "--keys", "keys", "--fleet", FLEET, "--channel", CHANNEL,
    )  # fmt: skip
    return started


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configure(device: str, broker: str, root: str) -> None:
    """What a person would do once on each device: a settings file, then trust."""
    (FOLDER / f"{device}.toml").write_text(
        f"""[agent]
device = "{device}"
fleet = "{FLEET}"
channel = "{CHANNEL}"
folder = "{device}"
models = ["{MODEL}"]

[broker]
url = "{broker}"

[telemetry]
window_s = 2      # so that a demo is short; a fleet would say 300

[trial]
requests = 20
seconds = 3
"""
    )
    command("edge-agent", "enroll", "--root", root, "--config", f"{device}.toml")


def versions() -> dict[str, str]:
    """Device -> version that the fleet knows it to have committed."""
    found = {}
    for device in ask("edge-fleet", "devices", "--db", DB):
        for model in device["models"]:
            if device["state"] == "online" and model["phase"] == "committed":
                found[device["device"]] = model["version"]
    return found


def follow(services: Services, version: str, since: float) -> None:
    """A progress bar until every device has committed ``version``."""
    with Progress(console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal) as progress:
        task = progress.add_task(f"  devices on {version}", total=len(DEVICES))
        seen: dict[str, float] = {}

        def everywhere() -> bool:
            for device, active in versions().items():
                if active == version and device not in seen:
                    seen[device] = time.monotonic() - since
            progress.update(task, completed=len(seen))
            return len(seen) == len(DEVICES)

        wait_for(services, f"version {version} on every device", everywhere)
    for device, seconds in sorted(seen.items(), key=lambda item: item[1]):
        CONSOLE.print(f"  {device}: {version} committed {seconds:.1f} s after publication")


def feed(
    questions: Questions, device: str, table: pd.DataFrame, truth: pd.Series
) -> tuple[int, float]:
    """Send rows one message each; how many were right, and the median milliseconds."""
    right, times = 0, []
    for (_, row), label in zip(table.iterrows(), truth, strict=True):
        started = time.perf_counter()
        (answer,) = questions.ask(device, [row.to_dict()])
        times.append(time.perf_counter() - started)
        right += int(answer["label"] == label)
    return right, 1000 * float(np.median(times))


def run(services: Services) -> dict[str, str]:
    """Every step in order; the figures for the summary."""
    summary: dict[str, str] = {}
    with step(1, "Train two models on real data"):
        rows, truth = train()

    with step(2, "Make keys; build a compressed, compared, signed bundle from each model"):
        command("edge-pack", "keys", "init", "keys")
        for version in ("1.0", "2.0"):
            summary[f"bundle {version}"] = build(version)

    with step(3, "Start a broker, the fleet server and three agents"):
        port = free_port()
        broker = f"mqtt://127.0.0.1:{port}"
        services.start(
            "broker",
            "edge-fleet",
            "broker",
            "--embedded",
            "--port",
            str(port),
            "--folder",
            "broker",
        )
        wait_for(services, "the broker's start", lambda: reachable(port))
        services.start(
            "fleet", "edge-fleet", "serve", "--broker", broker, "--fleet", FLEET, "--db", DB,
            "--window-s", "2",
        )  # fmt: skip
        for device in DEVICES:
            configure(device, broker, ROOT)
            services.start(device, "edge-agent", "run", "--config", f"{device}.toml")

    with step(4, "Publish version 1.0; the agents pull, verify, self-test and try it"):
        follow(services, "1.0", publish("1.0", broker))

    questions = Questions(broker)
    share = len(rows) // 4
    parts = [slice(i * share, (i + 1) * share) for i in range(4)]
    with step(5, "Ask the devices about held-out rows, over MQTT"):
        for device, part in zip(DEVICES, parts, strict=False):
            right, median_ms = feed(questions, device, rows[part], truth[part])
            CONSOLE.print(f"  {device}: {right} of {share} right, {median_ms:.1f} ms an answer")
            summary[f"{device}, version 1.0"] = f"{right / share:.1%} right, {median_ms:.1f} ms"

    with step(6, "Telemetry arrives: counts, never rows"):
        total = len(DEVICES) * share
        status = wait_for(services, "the telemetry of every row", lambda: counted(total))
        command("edge-fleet", "status", "--db", DB, show=True)
        summary["telemetry"] = f"{status['rows']} rows as counts in {status['windows']} windows"

    with step(7, "Publish version 2.0 and ask on during the swap"):
        asked, failed = swap(services, questions, rows, broker)
        CONSOLE.print(f"  {asked} requests during the swap, {failed} failed")
        summary["swap to 2.0"] = f"{asked} requests during it, {failed} failed"

    with step(8, f"A dirty lens on {DIRTY_DEVICE}: {DIRTY_PIXEL} reads {DIRTY_BY:g} too bright"):
        summary["drift"] = drift(services, questions, rows)
    questions.close()
    return summary


def reachable(port: int) -> bool:
    """Somebody listens on ``port``."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def counted(rows: int) -> Any:
    """The fleet's status once it holds ``rows`` rows."""
    status = ask("edge-fleet", "status", "--db", DB)
    return status if status["rows"] >= rows else None


def swap(
    services: Services, questions: Questions, rows: pd.DataFrame, broker: str
) -> tuple[int, int]:
    """Keep asking every device while version 2.0 spreads: requests, and how many failed."""
    asked, failed = 0, 0
    stop = threading.Event()

    def keep_asking() -> None:
        nonlocal asked, failed
        while not stop.is_set():
            for device in DEVICES:
                row = rows.iloc[asked % len(rows)].to_dict()
                asked += 1
                try:
                    questions.ask(device, [row])
                except Failed:
                    failed += 1

    thread = threading.Thread(target=keep_asking, daemon=True)
    try:
        thread.start()
        follow(services, "2.0", publish("2.0", broker))
    finally:
        stop.set()
    thread.join()
    if failed:
        raise Failed(f"{failed} of {asked} requests failed during the swap")
    return asked, failed


def drift(services: Services, questions: Questions, rows: pd.DataFrame) -> str:
    """Feed shifted rows to one device and true ones to the others until the fleet says so."""
    sent = 0
    with Progress(console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal) as progress:
        task = progress.add_task("  rows sent, waiting for an alarm", total=None)

        def alarmed() -> Any:
            nonlocal sent
            for device in DEVICES:
                batch = rows.iloc[np.arange(sent, sent + 20) % len(rows)].copy()
                if device == DIRTY_DEVICE:
                    batch[DIRTY_PIXEL] = np.minimum(batch[DIRTY_PIXEL] + DIRTY_BY, 16)
                questions.ask(device, batch.to_dict("records"))
            sent += 20
            progress.update(task, completed=sent)
            return ask("edge-fleet", "drift", "--db", DB)["alarms"]

        wait_for(services, "a drift alarm", alarmed)
    command("edge-fleet", "drift", "--db", DB, show=True)
    alarms = ask("edge-fleet", "drift", "--db", DB)["alarms"]
    named = {(alarm["device"], alarm["feature"]) for alarm in alarms}
    if (DIRTY_DEVICE, DIRTY_PIXEL) not in named:
        raise Failed(f"the alarm names {named}, not {DIRTY_DEVICE} and {DIRTY_PIXEL}")
    if any(device != DIRTY_DEVICE for device, _ in named):
        raise Failed(f"a device that sees ordinary data was accused: {named}")
    return f"{DIRTY_DEVICE}, {DIRTY_PIXEL}, after {sent} rows"


def play(steps: Callable[[Services], dict[str, str]]) -> int:
    """Take all ``steps`` in a new folder and print what they found. Returns the exit code."""
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    services = Services()
    try:
        summary = steps(services)
    except Failed as error:
        CONSOLE.print(f"\n[red]failed:[/red] {error}", markup=True)
        return 1
    except KeyboardInterrupt:
        CONSOLE.print("\ninterrupted; ending what was started ...")
        return 130
    finally:
        with INTERRUPTS.held():
            services.stop()
    table = Table(title="What happened", show_header=False)
    for name, figure in summary.items():
        table.add_row(name, figure)
    CONSOLE.print()
    CONSOLE.print(table)
    CONSOLE.print(
        f"All of it in {time.monotonic() - started:.0f} s. Files and logs: {FOLDER}/; "
        "no process is left behind."
    )
    return 0


def main(steps: Callable[[Services], dict[str, str]]) -> None:
    """Play them and exit."""
    try:
        sys.exit(play(steps))
    except KeyboardInterrupt:  # a second one, while the first was obeyed
        sys.exit(130)


if __name__ == "__main__":
    main(run)
