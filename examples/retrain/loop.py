"""The loop closed: drift, alarm, trigger, retraining, canary, promotion, quiet.

Three pumps; temperature, vibration, current and pressure say whether one is worn. A new batch of
temperature sensors reads 9 degrees too high: the model's answers go wrong, the fleet alarms, and a
trigger starts `retrain.py` with the evidence. What it trains is compared with the old bundle, goes
to one pump first, is judged there by labels that come later, and then goes to all.

Every part is the real one: a broker, `edge-fleet serve --triggers`, three agents, `edge-pack build
--baseline`. Run it in an empty folder: `python examples/retrain/loop.py`. It leaves `retrain-run/`
to be looked at, and no process behind.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the demo types commands and asks devices just so

import demo  # noqa: E402
from demo import CONSOLE, DB, Failed, Questions, Services, command, step, wait_for  # noqa: E402

from edge_contract.errors import EdgeError  # noqa: E402
from edge_fleet import reports  # noqa: E402
from edge_fleet.opening import opened  # noqa: E402
from edge_fleet.options import now_ms  # noqa: E402

FLEET, MODEL = "pumps", "wear"
CANARY_DEVICE, OTHERS = "pump1", ("pump2", "pump3")
DEVICES = (CANARY_DEVICE, *OTHERS)
SHIFT = 9.0
WINDOW_S = 2
BATCH = 100
SEED = 7
ACCURACY_MIN = 0.9

demo.FOLDER, demo.FLEET, demo.MODEL, demo.DEVICES = Path("retrain-run"), FLEET, MODEL, DEVICES


class Pumps:
    """Rows as the pumps have them, with what an inspector would say of each."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(SEED)
        self.shift = 0.0

    def rows(self, count: int) -> tuple[pd.DataFrame, np.ndarray]:
        """``count`` rows and their true states."""
        wear = self._rng.normal(size=count)

        def reading(mean: float, slope: float, noise: float) -> np.ndarray:
            return mean + slope * wear + self._rng.normal(0, noise, count)

        table = pd.DataFrame(
            {
                "temperature": reading(60.0, 5.0, 1.0) + self.shift,
                "vibration": reading(2.0, 0.5, 0.5),
                "current": reading(8.0, 0.5, 1.0),
                "pressure": reading(3.0, 0.0, 0.3),
            }
        )
        return table, np.where(wear > 0.5, "worn", "ok")


class Inspections:
    """Which answers were right, kept as the labels that come later."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, str, str]] = []

    def ask(self, questions: Questions, device: str, pumps: Pumps, count: int = BATCH) -> float:
        """Ask a device about ``count`` rows; the share that it got right."""
        rows, truth = pumps.rows(count)
        answers = questions.ask(device, rows.to_dict("records"))
        self.labels += [
            (device, answer["id"], str(label)) for answer, label in zip(answers, truth, strict=True)
        ]
        return float(np.mean([a["label"] == t for a, t in zip(answers, truth, strict=True)]))

    def hand_in(self, broker: str) -> str:
        """Send what was inspected, by `edge-fleet labels import`."""
        with (demo.FOLDER / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("device", "id", "label"))
            writer.writerows(self.labels)
        count, self.labels = len(self.labels), []
        command("edge-fleet", "labels", "import", "labels.csv", "--fleet", FLEET, "--broker",
                broker, "--model", MODEL)  # fmt: skip
        return f"{count} labels"


def first_version(pumps: Pumps) -> None:
    """Train and build 1.0 on rows of before."""
    rows, truth = pumps.rows(3000)
    model = RandomForestClassifier(20, max_depth=8, random_state=1).fit(rows[:1500], truth[:1500])
    joblib.dump(model, demo.FOLDER / f"{MODEL}-1.0.joblib")
    rows[1500:].assign(state=truth[1500:]).to_csv(demo.FOLDER / "rows.csv", index=False)
    command("edge-pack", "keys", "init", "keys")
    command("edge-pack", "build", f"{MODEL}-1.0.joblib", "--data", "rows.csv", "--target", "state",
            "--name", MODEL, "--version", "1.0", "--keys", "keys", "--no-measure",
            "-o", f"{MODEL}-1.0.edgepack")  # fmt: skip


def configure(device: str, broker: str) -> None:
    """The canary follows its own channel."""
    channel = "canary" if device == CANARY_DEVICE else "stable"
    (demo.FOLDER / f"{device}.toml").write_text(
        f"""[agent]
device = "{device}"
fleet = "{FLEET}"
channel = "{channel}"
folder = "{device}"
models = ["{MODEL}"]

[broker]
url = "{broker}"

[telemetry]
window_s = {WINDOW_S}      # so that this is short; a fleet would say 300

[trial]
requests = 20
seconds = 2
"""
    )
    command("edge-agent", "enroll", "--root", demo.ROOT, "--config", f"{device}.toml")


def start(services: Services) -> str:
    """Broker, fleet with its trigger, agents; the broker's address."""
    port = demo.free_port()
    broker = f"mqtt://127.0.0.1:{port}"
    services.start("broker", "edge-fleet", "broker", "--embedded", "--port", str(port))
    wait_for(services, "the broker's start", lambda: demo.reachable(port))
    (demo.FOLDER / "triggers.toml").write_text(
        f"""every_s = 1

[triggers.retrain]
models = ["{MODEL}"]
when = {{ alarms = 1, features = ["temperature", "error rate"], rows = 500, cooldown_s = 3600 }}

[triggers.retrain.command]
run = ["{sys.executable}", "{HERE / "retrain.py"}", "{broker}", "{FLEET}"]
timeout_s = 300
"""
    )
    services.start("fleet", "edge-fleet", "serve", "--broker", broker, "--fleet", FLEET, "--db", DB,
                   "--window-s", str(WINDOW_S), "--triggers", "triggers.toml")  # fmt: skip
    for channel in ("stable", "canary"):
        command("edge-pack", "publish", f"{MODEL}-1.0.edgepack", "--broker", broker, "--keys",
                "keys", "--fleet", FLEET, "--channel", channel)  # fmt: skip
    for device in DEVICES:
        configure(device, broker)
        services.start(device, "edge-agent", "run", "--config", f"{device}.toml")
    return broker


@dataclass
class Plant:
    """What runs, and what comes of it."""

    services: Services
    questions: Questions
    broker: str
    pumps: Pumps
    inspections: Inspections
    summary: dict[str, str]

    def feed(self, what: str, ready: Callable[[], Any], told: str = "") -> Any:
        """Rows for every pump until ``ready()``; ``told``: what the shares right are called."""
        right: dict[str, list[float]] = {device: [] for device in DEVICES}

        def fed() -> Any:
            for device in DEVICES:
                right[device].append(self.inspections.ask(self.questions, device, self.pumps))
            return ready()

        found = wait_for(self.services, what, fed)
        if told:
            shares = ", ".join(f"{device} {np.mean(right[device]):.0%}" for device in DEVICES)
            self.summary[told] = shares
            CONSOLE.print(f"  {told}: {shares}")
        return found

    def drift(self) -> None:
        """Quiet rows, then the new sensors, until the fleet alarms."""
        with step(3, "Quiet rows"):
            self.feed("telemetry of quiet rows", lambda: counted(1500), "right before")
            if alarms():
                raise Failed("an alarm on quiet rows")
        with step(4, f"New temperature sensors read {SHIFT:g} degrees too high"):
            self.pumps.shift = SHIFT
            labelled, truth = self.pumps.rows(4000)
            labelled.assign(state=truth).to_csv(demo.FOLDER / "labelled.csv", index=False)
            found = self.feed("an alarm", alarms, "right with them, by 1.0")
            command("edge-fleet", "drift", "--db", DB, show=True)
            named = sorted({f"{alarm.device} {alarm.feature}" for alarm in found})
            self.summary["first alarms"] = ", ".join(named)

    def retrain(self) -> None:
        """The trigger does its work, and the canary takes what comes of it."""
        with step(5, "The trigger retrains, builds against 1.0 and publishes to the canary"):
            fired = self.feed("the trigger's end", retrained)
            command("edge-fleet", "triggers", "history", "--db", DB, show=True)
            self.summary["trigger"] = f"firing {fired.number}, {fired.attempts} attempt"
        with step(6, f"{CANARY_DEVICE} tries 2.0 while the others stay on 1.0"):
            self.feed("2.0 on the canary", lambda: on("2.0", (CANARY_DEVICE,)))
            if not on("1.0", OTHERS):
                raise Failed("2.0 is on more than the canary")
            self.inspections.labels.clear()
            shares = [
                self.inspections.ask(self.questions, CANARY_DEVICE, self.pumps) for _ in range(5)
            ]
            self.inspections.hand_in(self.broker)
            judged = wait_for(self.services, "labels of the canary", lambda: judgement("2.0"))
            told = f"{np.mean(shares):.1%} right; by labels at least {judged.low:.1%}"
            self.summary["canary, by 2.0"] = told
            CONSOLE.print(f"  {told}")
            if judged.low < ACCURACY_MIN:
                raise Failed(f"these labels are no grounds for 2.0: {told}")

    def promote(self) -> None:
        """2.0 for all, and nothing alarms any more."""
        with step(7, "Promote 2.0 to all"):
            release = ("--broker", self.broker, "--keys", "keys", "--fleet", FLEET)
            command("edge-pack", "publish", f"{MODEL}-2.0.edgepack", "--candidate", *release)
            command("edge-pack", "promote", f"{MODEL}@2.0", *release)
            self.feed("2.0 everywhere", lambda: on("2.0", DEVICES))
        with step(8, "The same sensors, and quiet again"):
            goal = rows_so_far() + 1500
            self.feed("telemetry of 2.0", lambda: counted(goal), "right with them, by 2.0")
            loud = [f"{a.device} {a.feature}: {a.what}" for a in alarms() if a.version == "2.0"]
            if loud:
                raise Failed(f"2.0 alarms: {loud}")
            self.summary["alarms of 2.0"] = "none"


def run(services: Services) -> dict[str, str]:
    """Every step in order; the figures for the summary."""
    pumps = Pumps()
    with step(1, "Train and build version 1.0"):
        first_version(pumps)
    with step(2, "A broker, the fleet with its trigger, three pumps; 1.0 everywhere"):
        broker = start(services)
        wait_for(services, "1.0 on every pump", lambda: on("1.0", DEVICES))
    plant = Plant(services, Questions(broker), broker, pumps, Inspections(), {})
    plant.drift()
    plant.retrain()
    plant.promote()
    plant.questions.close()
    return plant.summary


# -- what the commands would say, read without starting one each time ----------------------------


def look(read: Callable[[Any], Any]) -> Any:
    """``read`` the fleet's store; None while there is none."""
    try:
        with opened(f"sqlite:///{demo.FOLDER}/fleet.db") as store:
            return read(store)
    except EdgeError:
        return None


def alarms() -> tuple[Any, ...]:
    """Open alarms: `edge-fleet drift`."""
    found: tuple[Any, ...] = look(lambda store: reports.drift(store, now_ms()).alarms) or ()
    return found


def rows_so_far() -> int:
    """Rows that came home: `edge-fleet status`."""
    return int(look(lambda store: reports.status(store, now_ms()).rows) or 0)


def counted(rows: int) -> bool:
    """So many rows came home."""
    return rows_so_far() >= rows


def on(version: str, devices: tuple[str, ...]) -> bool:
    """These devices have committed ``version``: `edge-fleet devices`."""
    known = look(lambda store: reports.devices(store, now_ms())) or ()
    committed = {
        device.device
        for device in known
        for model in device.models
        if device.state == "online" and (model.phase, model.version) == ("committed", version)
    }
    return committed.issuperset(devices)


def retrained() -> Any:
    """The firing, once its command has ended well. Raises Failed when it was given up."""

    def read(store: Any) -> Any:
        with store.reading() as tx:
            return tx.firings()

    for firing in look(read) or ():
        if firing.state == "failed":
            raise Failed(f"the trigger gave up: {firing.detail}")
        if firing.state == "done":
            return firing
    return None


def judgement(version: str) -> Any:
    """The share right by labels with its interval, once there are some: `edge-fleet accuracy`."""
    for report in look(reports.accuracy) or ():
        if report.version == version:
            return report.accuracy
    return None


if __name__ == "__main__":
    demo.main(run)
