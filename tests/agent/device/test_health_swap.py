"""Versions change under requests, in Python and over MQTT: none fails, each has one version."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from msgspec import UNSET

from edge_contract.errors import EdgeError

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
SWAPS = 20
ROLL_BACK_EVERY = 5


class Requests:
    """Asks in Python and over MQTT until it is told to stop."""

    def __init__(self, agent: Any, client: Any) -> None:
        self.agent, self.client = agent, client
        self.failures: list[str] = []
        self.answers: set[float] = set()
        self.sent: list[bytes] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=t) for t in (self._python, self._mqtt)]

    def _python(self) -> None:
        while not self._ending.is_set():
            try:
                found = self.agent.predict("pump", ROW)
                self.answers.add(round(found.probabilities["good"], 4))
            except EdgeError as error:
                self.failures.append(error.what)

    def _mqtt(self) -> None:
        while not self._ending.wait(0.02):
            self.sent.append(self.client.send("pi1", ROW))

    def __enter__(self) -> Requests:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_no_request_fails_during_twenty_changes_and_rolls_back(
    world: Any, tiny_bundle: Any
) -> None:
    device = world.new_device(trial={"requests": 10**9, "seconds": 0.5})
    scores = {}
    for version, seed in (("1.0", 7), ("2.0", 8)):
        world.publisher.publish(tiny_bundle(version, seed=seed))
        with device.agent() as agent:
            device.wait_at(version)
            scores[version] = round(agent.predict("pump", ROW).probabilities["good"], 4)
    with device.agent() as agent:
        with Requests(agent, world.client) as asked:
            version, revision = "2.0", 0
            for turn in range(1, SWAPS + 1):
                other = "1.0" if version == "2.0" else "2.0"
                revision += 1
                world.client.want("pi1", revision, pump=other)
                if turn % ROLL_BACK_EVERY == 0:
                    world.until(lambda: device.model().phase == "trial", "a trial")
                    revision += 1
                    world.client.want("pi1", revision, pump=version)
                else:
                    version = other
                device.wait_at(version)
            both = set(scores.values())
            world.until(lambda: asked.answers == both, "answers of both versions")
        answers = [
            world.until(lambda c=c: world.client.answers.get(c), f"answer {c!r}")
            for c in asked.sent
        ]
    assert asked.failures == []
    assert [answer.error for answer in answers if answer.error is not UNSET] == []
    assert {answer.version for answer in answers} == set(scores)
    assert device.model().quarantined == ()
    with device.agent() as agent:  # what changed so often is whole on disk
        assert round(agent.predict("pump", ROW).probabilities["good"], 4) == scores[version]
