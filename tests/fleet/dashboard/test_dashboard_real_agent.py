"""A real agent, broker and server behind the pages: keys to counts, all by public commands."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from dashboard_kit import Browsing
from fleet_kit import until
from sklearn.linear_model import LogisticRegression

from edge_contract import broker_url
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dashboard")]

FLEET, MODEL, DEVICE = "plant", "wear", "press-1"
WAIT_S = 180.0
SITE = "lyon <img src=x onerror=alert(1)>"


def command(folder: Path, module: str, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=folder, capture_output=True, text=True,
        timeout=WAIT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


class Long:
    """A command that runs until it is told to stop; its output in a file."""

    def __init__(self, folder: Path, name: str, module: str, *words: str) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *words], cwd=folder, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def said(self, word: str) -> str:
        """The line that begins with ``word``, once it is there."""

        def line() -> str:
            assert self._process.poll() is None, self.log.read_text()
            return next((x for x in self.log.read_text().splitlines() if x.startswith(word)), "")

        until(line, f"{word!r} in {self.log.name}", WAIT_S)
        return line()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def bundle(folder: Path) -> pd.DataFrame:
    """A small model, built and signed; the table it was fitted on."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {"force": rng.normal(20, 2, 600).round(2), "heat": rng.normal(60, 5, 600).round(2)}
    )
    worn = (table.force + table.heat / 5 > 32).astype(int).rename("worn")
    joblib.dump(LogisticRegression().fit(table, worn), folder / "wear.joblib")
    table.assign(worn=worn).to_csv(folder / "wear.csv", index=False)
    command(folder, "edge_pack", "keys", "init", "keys")
    command(folder, "edge_pack", "build", "wear.joblib", "--data", "wear.csv", "--target", "worn",
            "--name", MODEL, "--version", "1.0", "--keys", "keys", "-o", "wear.edgepack",
            "--no-measure")  # fmt: skip
    return table


class Asking:
    """Predictions over MQTT, each answered before the next."""

    def __init__(self, broker: str) -> None:
        self.answers: dict[bytes, dict[str, Any]] = {}
        self.topics = Topics(FLEET)
        config = LinkConfig(broker_url.parse(broker), client_id="test-asking")
        self.link = Link(config, on_message=self._heard)
        self.link.start(60)
        self.link.subscribe(["test/answers"]).wait(60)

    def _heard(self, message: Message) -> None:
        self.answers[message.correlation] = json.loads(message.payload)

    def ask(self, rows: list[dict[str, float]]) -> dict[str, Any]:
        number = os.urandom(8)
        self.link.publish(
            self.topics.requests(DEVICE, MODEL), json.dumps({"rows": rows}).encode(),
            response_topic="test/answers", correlation=number,
        )  # fmt: skip
        until(lambda: number in self.answers, "an answer", WAIT_S)
        return self.answers[number]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Asking, Any]]:
    """The dashboard's address, an operator's token, and who asks the device."""
    folder = tmp_path_factory.mktemp("plant")
    table = bundle(folder)
    with contextlib.ExitStack() as stack:
        server = Long(
            folder, "serve", "edge_fleet", "serve", "--port", "0", "--fleet", FLEET,
            "--db", "sqlite:///fleet.db", "--window-s", "2", "--http", "127.0.0.1:0",
        )  # fmt: skip
        stack.callback(server.stop)
        broker = server.said("broker ").split()[1]
        url = server.said("serving http").split()[1]
        server.said("collecting")
        command(folder, "edge_pack", "publish", "wear.edgepack", "--broker", broker,
                "--keys", "keys", "--fleet", FLEET, "--channel", "stable")  # fmt: skip
        (folder / "agent.toml").write_text(
            f'[agent]\ndevice = "{DEVICE}"\nfleet = "{FLEET}"\nchannel = "stable"\n'
            f'folder = "agent"\nmodels = ["{MODEL}"]\nlabels = {{ site = "{SITE}" }}\n'
            f'[broker]\nurl = "{broker}"\n[telemetry]\nwindow_s = 2\n'
            "[trial]\nrequests = 1\nseconds = 1\n"
        )
        command(folder, "edge_agent", "enroll", "--root", "keys/repository/metadata/1.root.json",
                "--config", "agent.toml")  # fmt: skip
        agent = Long(folder, "agent", "edge_agent", "run", "--config", "agent.toml")
        stack.callback(agent.stop)
        token = command(folder, "edge_fleet", "api-tokens", "create", "shift", "--role",
                        "operator", "--db", "sqlite:///fleet.db").strip()  # fmt: skip
        asking = Asking(broker)
        stack.callback(asking.link.stop)
        yield url, token, asking, table


def test_what_a_device_does_is_on_the_pages_as_it_happens(
    plant: tuple[str, str, Asking, Any], browsing: Callable[..., Browsing]
) -> None:
    url, token, asking, table = plant
    seen = browsing(url, token)
    seen.expected = ("404",)  # the device's page, before the fleet has heard of it
    page = seen.to("devices", "Devices")
    page.get_by_role("link", name=DEVICE).wait_for(timeout=1000 * WAIT_S)
    rows = table.to_dict("records")

    def committed() -> bool:
        answer = asking.ask(rows[:20])
        return "error" not in answer and answer["version"] == "1.0"

    until(committed, "an answer by 1.0", WAIT_S)
    page = seen.to(f"devices/{DEVICE}", DEVICE)
    page.locator("h3 .badge").filter(has_text="committed").wait_for(timeout=1000 * WAIT_S)
    text = seen.text()
    assert f"{MODEL} 1.0" in " ".join(text.split())
    assert SITE in " ".join(text.split()), "a label's markup is text"
    page.get_by_role("region", name="Events").get_by_role("row").nth(1).wait_for()
    for at in range(0, 200, 50):
        assert "error" not in asking.ask(rows[at : at + 50])
    page.locator(".column .after").first.wait_for(state="attached", timeout=1000 * WAIT_S)
    page = seen.to("", "Fleet")
    page.get_by_text("lyon <img src=x").wait_for()
    assert "all online" in seen.text()
    page.locator(".shares li").filter(has_text="1.0").wait_for()
    page = seen.to("events", "Events")
    page.get_by_role("link", name=DEVICE).first.wait_for()
    assert seen.page.locator("main img").count() == 0
