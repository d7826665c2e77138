"""Bindings on real brokers: sensors in, predictions out, and nothing that a sensor says harms."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

import jinja2
import pytest
from sparkplug_pb import PayloadMessage, encode

from edge_agent.bindings.station import IN_FLIGHT_MAX, Station
from edge_contract import broker_url
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_fleet.broker import Right, User

ANSWERS = "edge/1/home/d/pi1/out/pump"
PLAIN = """
[[bindings]]
model = "pump"
on = "message"
[bindings.inputs]
temp = { topic = "sensors/temp", format = "number" }
hum = { topic = "zigbee2mqtt/cellar", format = "zigbee2mqtt", field = "humidity", scale = 0.01 }
rpm = { topic = "tele/pump/SENSOR", format = "tasmota", field = "Motor.Rpm" }
volt = { value = 1.0 }
"""


def feed(desk: Any) -> None:
    """One reading of each sensor."""
    desk.say("sensors/temp", b"1.5")
    desk.say("zigbee2mqtt/cellar", {"humidity": 20.0, "temperature": 21.5, "linkquality": 120})
    desk.say("tele/pump/SENSOR", {"Time": "2026-11-21T10:00:00", "Motor": {"Rpm": 0.1}})


def said(message: Any) -> dict[str, Any]:
    return dict(json.loads(message.payload))


def test_several_topics_become_one_row_and_the_answer_is_the_models(desk: Any) -> None:
    bindings = desk.start(PLAIN)
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    answer = said(desk.until_heard(ANSWERS)[0])
    row = {"temp": 1.5, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
    expected = desk.serving.predict("pump", row)
    assert answer["label"] == expected.label
    assert answer["probabilities"] == pytest.approx(expected.probabilities)
    assert (answer["model"], answer["version"]) == ("pump", "1.0")
    assert "inputs" not in answer, "a row is published only where it is asked for"
    report = bindings.reports()["pump"]
    assert (report.predictions, report.published, report.connected) == (1, 1, True)
    assert report.waited == 2, "with one and with two of three inputs there was no row"
    assert report.odd["unreadable"] >= 1
    answered = desk.serving.seen("pump")[1].answered
    assert answered == 2, "telemetry counts what bindings predict: one by the binding, one by us"


def test_a_rate_is_kept_whatever_the_sensors_do(desk: Any) -> None:
    desk.start(PLAIN.replace('on = "message"', 'every = "200ms"'))
    desk.until_subscribed("pump", "sensors/temp", b"1")
    feed(desk)
    found = [said(message)["at_ms"] for message in desk.until_heard(ANSWERS, 4)]
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert min(gaps) > 50, f"every 200 ms, got gaps of {gaps} ms"


def test_on_change_a_value_within_its_deadband_asks_for_nothing(desk: Any) -> None:
    text = PLAIN.replace('on = "message"', 'on = "change"')
    text = text.replace('format = "number" }', 'format = "number", deadband = 0.5 }')
    bindings = desk.start(text)
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    desk.until_heard(ANSWERS, 1)
    for value in (b"1.6", b"1.9", b"2.0"):
        desk.say("sensors/temp", value)
    desk.say("sensors/temp", b"2.1")
    second = said(desk.until_heard(ANSWERS, 2)[1])
    expected = desk.serving.predict("pump", {"temp": 2.1, "hum": 0.2, "rpm": 0.1, "volt": 1.0})
    assert second["probabilities"] == pytest.approx(expected.probabilities)
    assert bindings.reports()["pump"].predictions == 2


def test_one_field_as_bare_text_retained_where_the_user_wants_it(desk: Any) -> None:
    settings = (
        'publish = { topic = "home/{device}/{model}", format = "plain", fields = ["label"],'
        " retain = true, qos = 1 }\n[bindings.inputs]"
    )
    desk.start(PLAIN.replace("[bindings.inputs]", settings))
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    message = desk.until_heard("home/pi1/pump")[0]
    assert message.payload in (b"bad", b"good")
    late: list[Any] = []
    other = Link(
        LinkConfig(broker=broker_url.parse(desk.url), client_id="late"), on_message=late.append
    )
    other.start(60)
    other.subscribe(["home/pi1/pump"]).wait(60)
    desk.until(lambda: late, "the retained answer")
    other.stop()
    assert late[0].retain and late[0].payload == message.payload


HOSTILE = [
    b"", b"NaN", b"inf", b"-Infinity", b"1e999", b"\xff\xfe", b"1_000", b"0x10", b"9" * 5000,
    b"[" * 100_000, b'{"a":' * 50_000, b"null", b"true",
]  # fmt: skip


def test_hostile_payloads_are_counted_and_the_next_good_one_is_answered(desk: Any) -> None:
    bindings = desk.start(PLAIN)
    desk.until_subscribed("pump", "sensors/temp", b"x")
    before = bindings.reports()["pump"]
    for payload in HOSTILE:
        for topic in ("sensors/temp", "zigbee2mqtt/cellar", "tele/pump/SENSOR"):
            desk.say(topic, payload)
    desk.say("zigbee2mqtt/cellar", b'{"humidity": ' + b" " * 400_000 + b"1}")
    desk.say("zigbee2mqtt/cellar", {"humidity": "wet"})
    desk.say("zigbee2mqtt/cellar", {"humidity": [1, 2]})
    feed(desk)
    desk.until_heard(ANSWERS)
    report = bindings.reports()["pump"]
    assert report.odd["oversize"] == 1
    assert report.odd["unreadable"] >= before.odd.get("unreadable", 0) + 3 * 9
    assert report.messages >= before.messages + 3 * len(HOSTILE) + 6
    assert report.failed == 0


def test_a_flood_costs_counts_and_the_agent_goes_on(desk: Any) -> None:
    """10,000 messages as fast as the broker takes them; each is taken, or counted as dropped."""
    bindings = desk.start(PLAIN.replace('on = "message"', 'on = "message"\nat_most = "1h"'))
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    desk.until_heard(ANSWERS)
    tickets = [desk.client.publish("sensors/temp", b"2.5", qos=0) for _ in range(10_000)]
    tickets[-1].wait(60)
    desk.say("sensors/temp", b"3.5")
    desk.until(lambda: not bindings._bridge._queue, "the queue to run empty")
    report = bindings.reports()["pump"]
    assert report.predictions == 1, "at most one an hour was asked for"
    assert report.messages + report.odd.get("dropped", 0) > 1000


def test_a_retained_value_of_unknown_age_is_no_fresh_sample(desk: Any) -> None:
    desk.say("sensors/temp", b"7", retain=True)
    desk.say("sensors/other", b"7", retain=True)
    text = PLAIN.replace('format = "number" }', 'format = "number", stale = "1h" }')
    text = text.replace(
        "volt = { value = 1.0 }", 'volt = { topic = "sensors/other", format = "number" }'
    )
    bindings = desk.start(text)
    desk.until(
        lambda: bindings.reports()["pump"].odd.get("retained") == 1, "the retained one counted"
    )
    feed(desk)
    answer = said(desk.until_heard(ANSWERS)[0])
    row = {"temp": 1.5, "hum": 0.2, "rpm": 0.1, "volt": 7.0}
    assert answer["label"] == desk.serving.predict("pump", row).label


def test_a_missing_value_is_the_manifests_matter_where_the_settings_say_so(desk: Any) -> None:
    bindings = desk.start(PLAIN.replace('on = "message"', 'on_missing = "predict"'))
    desk.until_subscribed("pump", "sensors/temp", b"1")
    desk.until(lambda: bindings.reports()["pump"].refused, "a refused row")
    assert "'hum' is missing" in bindings.reports()["pump"].why


HA = """
[bindings.homeassistant]
expire = "1min"
sensors = [
  { field = "label", name = "Pump state" },
  { field = "probabilities.bad", name = "Pump risk", unit = "%" },
]
"""


def configs(desk: Any) -> dict[str, Any]:
    """Home Assistant's view: the newest configuration by topic."""
    return {m.topic: m.payload for m in desk.heard if m.topic.endswith("/config")}


def test_a_prediction_appears_in_home_assistant_by_itself_and_goes_with_its_binding(
    desk: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    desk.start(PLAIN + HA)
    desk.until(lambda: len(configs(desk)) == 2, "two sensors")
    first = [json.loads(payload) for payload in configs(desk).values()]
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    state = desk.until_heard(ANSWERS)[0]
    templates = {each["name"]: each["value_template"] for each in first}
    shown = {
        name: jinja2.Environment().from_string(text).render(value_json=said(state))
        for name, text in templates.items()
    }
    assert shown["Pump state"] == said(state)["label"]
    assert float(shown["Pump risk"]) == said(state)["probabilities"]["bad"]
    assert {each["state_topic"] for each in first} == {ANSWERS}

    # Home Assistant starts anew: everything is said again, the last answer too.
    count = len([m for m in desk.heard if m.topic.endswith("/config")])
    desk.say("homeassistant/status", b"online")
    desk.until(
        lambda: len([m for m in desk.heard if m.topic.endswith("/config")]) == count + 2,
        "the sensors said again",
    )
    assert desk.until_heard(ANSWERS, 2)[1].payload == state.payload

    # One sensor goes with its settings at the next start, the other with the last binding.
    one = HA.replace('  { field = "label", name = "Pump state" },\n', "")
    desk.start(PLAIN + one)
    desk.until(lambda: sorted(configs(desk).values())[0] == b"", "the first to be removed")
    assert sorted(configs(desk).values())[1] != b""
    memo = desk.folder / "state" / "bindings.json"
    assert memo.exists()
    desk.start("")
    desk.until(lambda: set(configs(desk).values()) == {b""}, "the other to be removed")
    desk.until(lambda: not memo.exists(), "nothing to be left at the broker")


def test_a_local_broker_that_comes_late_or_goes_away_disturbs_nothing(
    desk: Any, start_broker: Callable[..., Any]
) -> None:
    local = start_broker()
    local.stop()
    text = f'[brokers.local]\nurl = "{local.url}"\n' + PLAIN
    far = text + PLAIN.replace('model = "pump"', 'model = "pump"\nname = "far"\nbroker = "local"')
    bindings = desk.start(far)
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    desk.until_heard(ANSWERS)
    report = bindings.reports()["far"]
    assert (report.connected, report.messages) == (False, 0)
    local.start()
    desk.until(lambda: bindings.reports()["far"].connected, "the local broker")
    local.kill()
    desk.until(lambda: not bindings.reports()["far"].connected, "the local broker gone")
    feed(desk)
    desk.until_heard(ANSWERS, 2)


def test_a_broker_that_stalled_and_dropped_the_connection_is_published_to_again(
    stalling_broker: Any,
) -> None:
    back, taken = threading.Event(), threading.Event()
    link = Link(
        LinkConfig(broker_url.parse(stalling_broker.url), client_id="pi1", reconnect_max_s=1),
        on_up=lambda _: back.set() if stalling_broker.drop.is_set() else None,
    )
    station = Station("local", link, [])
    link.start(60)
    said = [station.publish("out", bytes(60_000)) for _ in range(300 + IN_FLIGHT_MAX)]
    assert said[-1].endswith("takes no more at this moment")
    stalling_broker.drop.set()
    assert back.wait(60)
    assert station.publish("out", b"x", then=lambda accepted: accepted and taken.set()) == ""
    assert taken.wait(60)
    assert station.refused == "", "a connection that was lost is no refusal"
    link.stop()


SPARK = """
[[bindings]]
model = "pump"
rebirth = true
[bindings.inputs]
temp = { topic = "spBv1.0/plant/+/edge1/#", format = "sparkplug", field = "Motor/Temp" }
hum = { topic = "spBv1.0/plant/+/edge1/#", format = "sparkplug", field = "Air/Humidity" }
rpm = { value = 0.1 }
volt = { value = 1.0 }
"""


def test_a_sparkplug_device_is_asked_for_the_births_that_were_missed(desk: Any) -> None:
    """A node that was there first sends aliases; asked for a rebirth, it tells their names."""
    data, birth = "spBv1.0/plant/DDATA/edge1/press", "spBv1.0/plant/DBIRTH/edge1/press"
    reading = encode({"alias": 1, "double_value": 1.5}, {"alias": 2, "float_value": 0.25})
    desk.start(SPARK)
    desk.until_subscribed("pump", data, reading)
    (command,) = desk.until_heard("spBv1.0/plant/NCMD/edge1")
    asked = PayloadMessage()
    asked.ParseFromString(command.payload)
    assert asked.metrics[0].name == "Node Control/Rebirth" and asked.metrics[0].boolean_value
    assert not desk.on(ANSWERS)
    desk.say(
        birth,
        encode(
            {"name": "Motor/Temp", "alias": 1, "datatype": 10, "double_value": 1.0},
            {"name": "Air/Humidity", "alias": 2, "datatype": 9, "is_null": True},
        ),
    )
    desk.say(data, reading)
    answer = said(desk.until_heard(ANSWERS)[0])
    row = {"temp": 1.5, "hum": 0.25, "rpm": 0.1, "volt": 1.0}
    expected = desk.serving.predict("pump", row)
    assert answer["probabilities"] == pytest.approx(expected.probabilities)
    desk.say("spBv1.0/plant/DDEATH/edge1/press", encode())
    desk.until(
        lambda: "null" in desk.bindings.reports()["pump"].why, "values to go with their device"
    )
    assert len(desk.on("spBv1.0/plant/NCMD/edge1")) == 1, "a node is asked once a minute at most"


def test_what_a_removed_binding_subscribed_to_is_given_up(desk: Any) -> None:
    """The agent's session at its broker outlives the agent, and so would its subscriptions."""
    desk.start(PLAIN)
    desk.until_subscribed("pump", "sensors/temp", b"x")
    bindings = desk.start(PLAIN.replace("sensors/temp", "sensors/new"))
    desk.until_subscribed("pump", "sensors/new", b"1")
    heard: list[str] = []
    handle, link = desk.bindings.handle, desk.own

    def note(message: Any) -> None:
        heard.append(message.topic)
        handle(message)

    link._on_message = note
    before = bindings.reports()["pump"].messages
    desk.say("sensors/temp", b"1")
    desk.say("sensors/new", b"1")
    desk.until(lambda: bindings.reports()["pump"].messages > before, "the new topic")
    assert "sensors/temp" not in heard


def test_a_local_broker_hears_whether_the_device_is_there(
    desk: Any, start_broker: Callable[..., Any]
) -> None:
    """Home Assistant at the local broker sees it come, and sees it gone when it stops."""
    local = start_broker()
    seen: list[Any] = []
    watcher = Link(
        LinkConfig(broker=broker_url.parse(local.url), client_id="ha"), on_message=seen.append
    )
    watcher.start(60)
    watcher.subscribe(["edge/1/home/d/pi1/status"]).wait(60)
    desk.start(
        f'[brokers.local]\nurl = "{local.url}"\n'
        + PLAIN.replace('model = "pump"', 'model = "pump"\nbroker = "local"')
        + HA
    )
    desk.until(lambda: seen and said(seen[-1])["online"], "the device to be there")
    desk.stop()
    desk.until(lambda: not said(seen[-1])["online"], "the device to be gone")
    watcher.stop()


def test_an_answer_may_feed_another_binding(desk: Any, regression_bundle: Any) -> None:
    desk.put(regression_bundle(), "flow")
    chain = """
[[bindings]]
model = "flow"
[bindings.inputs]
temp = { topic = "edge/1/home/d/pi1/out/pump", field = "/probabilities/bad" }
hum = { value = 0.0 }
rpm = { value = 0.0 }
volt = { value = 0.5 }
"""
    desk.start(PLAIN + chain)
    desk.until_subscribed("pump", "sensors/temp", b"x")
    feed(desk)
    first = said(desk.until_heard(ANSWERS)[0])
    second = said(desk.until_heard("edge/1/home/d/pi1/out/flow")[0])
    row = {"temp": first["probabilities"]["bad"], "hum": 0.0, "rpm": 0.0, "volt": 0.5}
    assert second["value"] == pytest.approx(desk.serving.predict("flow", row).value)


LOCAL = 'model = "pump"\nbroker = "local"'


def test_a_local_account_needs_rights_to_its_sensors_and_answers_only(
    desk: Any, start_broker: Callable[..., Any]
) -> None:
    topics = ("sensors/#", "zigbee2mqtt/#", "tele/#")
    rights = [Right(topic, read=True) for topic in topics]
    local = start_broker(
        users={
            "pi1": User("geheim", (*rights, Right(ANSWERS, write=True))),
            "house": User("geheim", (Right("#", read=True, write=True),)),
        }
    )
    url = local.url.replace("mqtt://", "mqtt://{}:geheim@")
    heard: list[Any] = []
    house = Link(
        LinkConfig(broker=broker_url.parse(url.format("house")), client_id="house"),
        on_message=heard.append,
    )
    house.start(60)
    house.subscribe([ANSWERS]).wait(60)
    bindings = desk.start(
        f'[brokers.local]\nurl = "{url.format("pi1")}"\n' + PLAIN.replace('model = "pump"', LOCAL)
    )

    def answered() -> bool:
        house.publish("sensors/temp", b"1.5").wait(60)
        house.publish("zigbee2mqtt/cellar", b'{"humidity": 20}').wait(60)
        house.publish("tele/pump/SENSOR", b'{"Motor": {"Rpm": 0.1}}').wait(60)
        return bool(heard)

    desk.until(answered, "an answer")
    assert bindings.reports()["pump"].connected
    house.stop()


def test_what_a_broker_refuses_stands_in_the_status(
    desk: Any, start_broker: Callable[..., Any], broker_kind: str
) -> None:
    if broker_kind == "mosquitto":
        pytest.skip("mosquitto's acl_file lets everyone subscribe, and delivers nothing")
    local = start_broker(users={"pi1": User("geheim", (Right("sensors/temp", read=True),))})
    url = local.url.replace("mqtt://", "mqtt://pi1:geheim@")
    bindings = desk.start(
        f'[brokers.local]\nurl = "{url}"\n' + PLAIN.replace('model = "pump"', LOCAL)
    )
    desk.until(lambda: "to subscribe to" in bindings.reports()["pump"].why, "the refusal")
    wrong = url.replace("geheim", "falsch")
    bindings = desk.start(
        f'[brokers.local]\nurl = "{wrong}"\n' + PLAIN.replace('model = "pump"', LOCAL)
    )
    desk.until(lambda: "refuses this device" in bindings.reports()["pump"].why, "the refusal")
