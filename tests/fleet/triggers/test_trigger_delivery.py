"""What a firing comes to at receivers that fail, hang, put off and lie; each one is real."""

from __future__ import annotations

import json
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from fleet_kit import until
from free_ports import free_port
from trigger_kit import NOW_MS, SECRET

from edge_contract import broker_url, trigger
from edge_contract.errors import InputFault
from edge_contract.ports import certificates
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_fleet.store.firings import Firing
from edge_fleet.triggers import posting, processes, signing
from edge_fleet.triggers import settings as trigger_settings
from edge_fleet.triggers.delivery import Delivered, Place, deliver
from edge_fleet.triggers.settings import Trigger

ALARM = trigger.AlarmFound(
    id=7, level="fleet", device="(all devices)", feature="temperature", source="feature",
    kind="mean-up", what="mean up by 3", since="2023-11-14T22:00:00Z",
    opened="2023-11-14T22:13:20Z", evidence=9.0, threshold=6.5, rows=500,
)  # fmt: skip
EVIDENCE = trigger.Evidence(
    key="ab" * 32, trigger="retrain", fleet="test", at="2023-11-14T22:13:20Z", model="boiler",
    version="1.0", bundle="cd" * 32, why=("1 open alarms",), alarms=(ALARM,), alarms_open=1,
)  # fmt: skip
FIRING = Firing(
    key=EVIDENCE.key, trigger="retrain", number=1, model="boiler", version="1.0",
    bundle=EVIDENCE.bundle, alarms=(7,), rows=500, at_ms=NOW_MS, state="waiting",
    evidence=trigger.encode(EVIDENCE),
)  # fmt: skip


def rule(text: str) -> Trigger:
    return trigger_settings.read(f"[triggers.retrain]\n{text}".encode()).triggers["retrain"]


def webhook(url: str, more: str = "") -> Trigger:
    return rule(
        f'webhook = {{ url = "{url}", secret_file = "hook.secret", {more or "attempts=3"} }}'
    )


# -- webhooks --------------------------------------------------------------------------------


def test_a_webhook_is_signed_as_the_standard_says(
    receiver: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard's own library is the receiver; its clock is the real one."""
    import time

    now = replace(place, clock_ms=lambda: int(time.time() * 1000))
    assert deliver(webhook(receiver.url + "/hook?for=us"), FIRING, (7,), now) == Delivered(
        True, "HTTP 200: noted"
    )
    [(path, headers, body)] = receiver.came
    assert path == "/hook?for=us"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == headers["idempotency-key"] == FIRING.key
    verifier = standardwebhooks.Webhook(SECRET)
    assert verifier.verify(body, headers)["alarms"][0]["what"] == "mean up by 3"
    for changed in (
        {**headers, "webhook-id": "other"},
        {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 600)},
    ):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verifier.verify(body, changed)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(body.replace(b"boiler", b"toiler"), headers)
    assert trigger.decode(body) == EVIDENCE


def test_the_secret_may_stand_in_a_variable(
    receiver: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = rule(f'webhook = {{ url = "{receiver.url}", secret_variable = "HOOK_SECRET" }}')
    told = deliver(hook, FIRING, (), place)
    assert told.final and "HOOK_SECRET is not set" in told.detail
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    assert deliver(hook, FIRING, (), place).done


@pytest.mark.parametrize(
    ("status", "headers", "wanted"),
    [
        (500, {}, Delivered(False, "HTTP 500: not now")),
        (503, {"Retry-After": "120"}, Delivered(False, "HTTP 503: not now", asked_s=120.0)),
        (429, {"Retry-After": "7"}, Delivered(False, "HTTP 429: not now", asked_s=7.0)),
        (408, {}, Delivered(False, "HTTP 408: not now")),
        (400, {}, Delivered(False, "HTTP 400: not now", final=True)),
        (404, {}, Delivered(False, "HTTP 404: not now", final=True)),
        (302, {"Location": "http://x/"}, Delivered(False, "HTTP 302: not now", final=True)),
        (204, {}, Delivered(True, "HTTP 204: not now")),
    ],
)  # fmt: skip
def test_what_a_receiver_answers_says_later_never_or_taken(
    receiver: Any, place: Place, status: int, headers: dict[str, str], wanted: Delivered
) -> None:
    receiver.answers.append((status, headers))
    told = deliver(webhook(receiver.url), FIRING, (7,), place)
    assert told == (replace(wanted, detail="HTTP 204") if status == 204 else wanted)
    assert len(receiver.came) == 1, "nothing is tried again here, no redirection is followed"


def test_a_receiver_that_is_away_is_tried_again(place: Place) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        told = deliver(webhook(url), FIRING, (7,), place)
    assert (told.done, told.final, told.stopped) == (False, False, False)
    assert "refused" in told.detail


@pytest.mark.parametrize("trickle", [False, True], ids=["says-nothing", "trickles"])
def test_a_receiver_that_hangs_is_cut_off(receiver: Any, place: Place, trickle: bool) -> None:
    """A byte now and then resets a socket's time-out, not ours."""
    over = threading.Event()

    def hold(handler: Any) -> None:
        while not over.wait(0.05):
            if trickle:
                try:
                    handler.wfile.write(b"H")
                    handler.wfile.flush()
                except OSError:
                    return

    receiver.hold = hold
    told = deliver(webhook(receiver.url, "timeout_s = 0.5"), FIRING, (7,), place)
    over.set()
    assert "did not answer within 0.5 s" in told.detail
    assert not told.final


def test_a_server_that_stops_waits_for_no_receiver(receiver: Any, place: Place) -> None:
    over = threading.Event()

    def hold(_: Any) -> None:
        place.stop.set()
        over.wait(60)

    receiver.hold = hold
    told = deliver(webhook(receiver.url, "timeout_s = 60"), FIRING, (7,), place)
    over.set()
    assert told.stopped and not told.final


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swordfish", "begins with whsec_"),
        ("whsec_???", "not base64"),
        ("whsec_YWJj", "has 3 bytes"),
    ],
)
def test_a_poor_secret_is_refused_and_never_repeated(text: str, said: str) -> None:
    with pytest.raises(InputFault, match=said) as caught:
        signing.secret_of(text)
    assert text.removeprefix("whsec_") not in caught.value.what


@pytest.mark.parametrize(
    "url", ["http://", "http://user:pass@host/", "http://h:99999/", "http://[::", "gopher://h"]
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(InputFault):
        posting.checked(url)


# -- commands --------------------------------------------------------------------------------


def command(code: str, more: str = "") -> Trigger:
    words = json.dumps([sys.executable, "-c", code])
    return rule(f"command = {{ run = {words}, {more or 'attempts = 3'} }}")


def test_a_command_gets_the_evidence_and_the_key(place: Place) -> None:
    code = (
        "import json, os, sys; e = json.load(sys.stdin);"
        " print(e['model'], e['alarms'][0]['id'], os.environ['EDGE_TRIGGER_KEY'] == e['key'],"
        " os.getcwd())"
    )
    told = deliver(command(code), FIRING, (7,), place)
    assert told == Delivered(True, f"exit code 0: boiler 7 True {place.folder}")


def test_a_command_that_fails_is_tried_again_with_its_last_words_kept(place: Place) -> None:
    code = "import sys; print('x' * 100_000); print('no space', file=sys.stderr); sys.exit(3)"
    told = deliver(command(code), FIRING, (), place)
    assert not told.done and not told.final
    assert told.detail.startswith("exit code 3: xxx") and told.detail.endswith("no space")
    assert len(told.detail) < processes.OUTPUT_KEPT_BYTES + 100


def test_no_shell_reads_a_commands_words(place: Place) -> None:
    words = json.dumps([sys.executable, "-c", "import sys; print(sys.argv[1])", "$(id); echo no"])
    told = deliver(rule(f"command = {{ run = {words} }}"), FIRING, (), place)
    assert told.detail == "exit code 0: $(id); echo no"


def test_a_command_that_is_not_there(place: Place) -> None:
    told = deliver(rule('command = { run = ["./no-such-command"] }'), FIRING, (), place)
    assert "cannot be started" in told.detail and not told.done


@pytest.mark.parametrize("why", ["too long", "stop"])
def test_a_command_and_what_it_started_are_ended(place: Place, tmp_path: Path, why: str) -> None:
    """Its child holds a lock as long as it lives."""
    ready, lock = tmp_path / "ready", tmp_path / "lock"
    child = (
        "import fcntl, pathlib, time;"
        f" f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        f" pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    if why == "stop":
        thread = threading.Thread(
            target=lambda: (until(ready.exists, "the child runs"), place.stop.set())
        )
        thread.start()
        told = deliver(command(code), FIRING, (), place)
        thread.join()
        assert told.stopped
    else:
        told = deliver(command(code, "timeout_s = 1.5"), FIRING, (), place)
        assert "ended after 1.5 s" in told.detail
    if ready.exists():
        taken = ["flock", "-n", lock, "true"]
        until(lambda: subprocess.run(taken, check=False).returncode == 0, "its child has ended")


# -- MQTT ------------------------------------------------------------------------------------


def test_mqtt_carries_the_evidence(any_broker: Any, place: Place) -> None:
    came: queue.SimpleQueue[Message] = queue.SimpleQueue()
    url = broker_url.parse(any_broker.url)
    listener = Link(LinkConfig(url, client_id="listener"), on_message=came.put)
    listener.start(60)
    listener.subscribe(["edge/1/test/trigger/+", "own/topic"]).wait(60)
    here = replace(place, link=LinkConfig(url, client_id=""))
    for text, topic in (("", "edge/1/test/trigger/retrain"), ('topic = "own/topic"', "own/topic")):
        told = deliver(rule(f"mqtt = {{ {text} }}"), FIRING, (7,), here)
        assert told.done, told.detail
        message = came.get(timeout=60)
        assert (message.topic, message.qos) == (topic, 1)
        assert message.correlation == FIRING.key.encode()
        assert trigger.decode(message.payload) == EVIDENCE
    listener.stop()
    told = deliver(rule("mqtt = {}"), FIRING, (7,), here)
    assert told.done


def test_a_broker_that_is_away_is_tried_again(place: Place) -> None:
    told = deliver(rule("mqtt = { timeout_s = 0.5 }"), FIRING, (7,), place)
    assert not told.done and not told.final
    assert "no connection to" in told.detail


# -- Alertmanager ----------------------------------------------------------------------------


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """Debian's own, without a cluster: its address."""
    binary = shutil.which("prometheus-alertmanager")
    if binary is None:
        pytest.skip("no Alertmanager (Debian: apt-get install prometheus-alertmanager)")
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n")
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [binary, f"--config.file={config}", f"--storage.path={tmp_path / 'am'}",
         f"--web.listen-address={address}", "--cluster.listen-address="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://{address}"

    def ready() -> bool:
        assert server.poll() is None, "Alertmanager ended"
        try:
            with urllib.request.urlopen(url + "/-/ready", timeout=5):
                return True
        except OSError:
            return False

    until(ready, "Alertmanager is up")
    yield url
    server.kill()
    server.wait()


def told_alerts(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url + "/api/v2/alerts?active=true", timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def test_alertmanager_takes_alerts_and_ends_them(alertmanager: str, place: Place) -> None:
    import time

    now = replace(place, clock_ms=lambda: int(time.time() * 1000))
    page = rule(
        f'alertmanager = {{ url = "{alertmanager}/", resend_s = 60, labels = {{ team = "ml" }} }}'
    )
    told = deliver(page, FIRING, (7,), now)
    assert told == Delivered(True, "HTTP 200", again_s=60.0)
    until(lambda: told_alerts(alertmanager), "the alert is there")
    [alert] = told_alerts(alertmanager)
    assert alert["labels"] == {
        "alertname": "EdgeModelDrift", "severity": "warning", "trigger": "retrain",
        "fleet": "test", "model": "boiler", "version": "1.0", "level": "fleet",
        "device": "(all devices)", "feature": "temperature", "alarm": "7", "team": "ml",
    }  # fmt: skip
    assert alert["annotations"]["summary"] == "boiler 1.0: temperature: mean up by 3"
    assert deliver(page, FIRING, (7,), now).again_s == 60.0
    assert len(told_alerts(alertmanager)) == 1, "told again, it is the same alert"
    assert deliver(page, FIRING, (), now) == Delivered(True, "HTTP 200")
    until(lambda: not told_alerts(alertmanager), "the alert has ended")


def test_alertmanager_may_want_a_token(receiver: Any, place: Place) -> None:
    (place.folder / "token").write_text("s3cret\n")
    page = rule(f'alertmanager = {{ url = "{receiver.url}", secret_file = "token" }}')
    assert deliver(page, FIRING, (7,), place).done
    [(path, headers, _)] = receiver.came
    assert (path, headers["authorization"]) == ("/api/v2/alerts", "Bearer s3cret")


# -- TLS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", [True, False])
def test_a_receiver_over_tls_has_to_prove_itself(
    tmp_path: Path, place: Place, trusted: bool
) -> None:
    """With the authority that is named it is believed; with the system's alone it is not."""
    ca, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    own = tmp_path / "own.key"
    certificates.make_authority(ca, key, "tests")
    issued = certificates.issue(
        ca, key, certificates.make_request(own), "receiver", hosts=("127.0.0.1",)
    )
    (tmp_path / "own.pem").write_text(issued)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", own)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        more = 'ca_file = "ca.pem"' if trusted else "attempts = 3"
        told = deliver(
            webhook(f"https://127.0.0.1:{server.server_port}", more), FIRING, (7,), place
        )
        server.shutdown()
        thread.join()
    assert told.done is trusted
    assert trusted or "certificate verify failed" in told.detail
