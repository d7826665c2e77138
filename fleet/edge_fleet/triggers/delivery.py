"""One attempt to deliver a firing, by each kind of action.

Guards: an attempt ends within its time limit, whatever the other side does; what went wrong comes
back as words and never as an exception; no secret stands in them.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from edge_contract import broker_url, trigger
from edge_contract.errors import EdgeError, InputFault
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import Topics
from edge_fleet.store.firings import Firing
from edge_fleet.triggers import alerts, posting, processes, signing
from edge_fleet.triggers.retry import retry_after_s
from edge_fleet.triggers.settings import Alertmanager, Command, Mqtt, Trigger, Webhook

SECRET_MAX_BYTES = 4096
KEY_VARIABLE = "EDGE_TRIGGER_KEY"
_AGAIN = {408, 425, 429, *range(500, 600)}
"""Statuses that say "later"; any other than 2xx says "never"."""


@dataclass(frozen=True)
class Delivered:
    """What an attempt came to.

    Attributes:
        done: the other side took it. final: if it did not, another attempt is of no use.
        detail: in words. asked_s: what it asked us to wait.
        stopped: this process was told to stop: the attempt does not count.
        again_s: it took it, and is to be told again then (Alertmanager).
    """

    done: bool
    detail: str
    final: bool = False
    asked_s: float | None = None
    stopped: bool = False
    again_s: float | None = None


@dataclass(frozen=True)
class Place:
    """Where deliveries are made from.

    Attributes:
        folder: of the settings file; relative paths begin there.
        link: how the fleet's broker is reached, without a client id.
        clock_ms: milliseconds since 1970 UTC.
        keep_ms: how long firings that are over are kept; None: for ever.
    """

    folder: Path
    link: LinkConfig
    topics: Topics
    clock_ms: Callable[[], int]
    stop: threading.Event
    keep_ms: int | None = None


def deliver(rule: Trigger, firing: Firing, open_alarms: Collection[int], place: Place) -> Delivered:
    """Try once. ``open_alarms``: those of the firing's that nobody resolved yet."""
    try:
        match rule.action:
            case Webhook() as action:
                return _webhook(action, firing, place)
            case Command() as action:
                return _command(action, firing, place)
            case Mqtt() as action:
                return _mqtt(action, firing, place)
            case Alertmanager() as action:
                return _alertmanager(action, firing, open_alarms, place)
    except InputFault as error:
        return Delivered(False, error.what, final=not place.stop.is_set())
    except EdgeError as error:
        return Delivered(False, error.what, stopped=place.stop.is_set())


def secret_text(action: Webhook | Alertmanager, folder: Path) -> str:
    """The secret as it was written down; "" for none. Raises InputFault, MachineFault."""
    if action.secret_file:
        path = folder / action.secret_file
        if not path.is_file():
            raise InputFault(f"secret_file {path} is not there")
        return read_bounded(path, SECRET_MAX_BYTES).decode(errors="replace").strip()
    if action.secret_variable:
        found = os.environ.get(action.secret_variable, "")
        if not found:
            raise InputFault(f"the variable {action.secret_variable} is not set")
        return found
    return ""


def topic_of(action: Mqtt, name: str, topics: Topics) -> str:
    """Where a message goes: as stated, or ``<prefix>/<fleet>/trigger/<name>``."""
    return action.topic or topics.trigger(name)


def _webhook(action: Webhook, firing: Firing, place: Place) -> Delivered:
    secret = signing.secret_of(secret_text(action, place.folder))
    now_s = place.clock_ms() // 1000
    headers = signing.headers(secret, firing.key, now_s, firing.evidence)
    return _posted(
        action, action.url, firing.evidence, {**headers, "idempotency-key": firing.key}, place
    )


def _alertmanager(
    action: Alertmanager, firing: Firing, open_alarms: Collection[int], place: Place
) -> Delivered:
    found = alerts.alerts(
        trigger.decode(firing.evidence), open_alarms, action.labels, now_ms=place.clock_ms(),
        resend_s=action.resend_s,
    )  # fmt: skip
    token = secret_text(action, place.folder)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = action.url.rstrip("/") + "/api/v2/alerts"
    told = _posted(action, url, json.dumps(found).encode(), headers, place)
    if told.done and open_alarms:
        return Delivered(True, told.detail, again_s=action.resend_s)
    return told


def _posted(
    action: Webhook | Alertmanager, url: str, body: bytes, headers: dict[str, str], place: Place
) -> Delivered:
    ca_file = str(place.folder / action.ca_file) if action.ca_file else ""
    answer = posting.post(
        url, body, headers, timeout_s=action.timeout_s, stop=place.stop, ca_file=ca_file
    )
    text = f"HTTP {answer.status}" + (f": {answer.text.strip()}" if answer.text.strip() else "")
    if 200 <= answer.status < 300:
        return Delivered(True, text)
    asked_s = retry_after_s(answer.retry_after, place.clock_ms())
    return Delivered(False, text, final=answer.status not in _AGAIN, asked_s=asked_s)


def _command(action: Command, firing: Firing, place: Place) -> Delivered:
    ran = processes.run(
        action.run,
        firing.evidence,
        folder=place.folder / action.folder,
        timeout_s=action.timeout_s,
        stop=place.stop,
        environment={KEY_VARIABLE: firing.key},
    )
    output = f": {ran.output}" if ran.output else ""
    if ran.code is None:
        return Delivered(False, ran.why + output, stopped=place.stop.is_set())
    return Delivered(ran.code == 0, f"exit code {ran.code}{output}")


def _mqtt(action: Mqtt, firing: Firing, place: Place) -> Delivered:
    config = place.link
    if action.broker:
        config = LinkConfig(broker_url.parse(action.broker), client_id="")
    config = LinkConfig(
        config.broker, client_id=f"edge-trigger-{firing.key[:16]}", ca_file=config.ca_file,
        cert_file=config.cert_file, key_file=config.key_file,
    )  # fmt: skip
    link = Link(config)
    link.start(action.timeout_s, meanwhile=lambda: _go_on(place.stop))
    try:
        topic = topic_of(action, firing.trigger, place.topics)
        ticket = link.publish(
            topic, firing.evidence, retain=action.retain, content_type="application/json",
            correlation=firing.key.encode(),
        )  # fmt: skip
        ticket.wait(action.timeout_s)
        heard = "; nobody was subscribed" if ticket.unheard else ""
        return Delivered(True, f"acknowledged by {config.broker}{heard}")
    finally:
        link.stop()


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise EdgeError("edge-fleet was told to stop")
