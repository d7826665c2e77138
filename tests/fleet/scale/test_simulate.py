"""Devices that are none speak as real ones do: collectors and rollouts cannot tell."""

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_kit import FLEET, Packed, Publisher, collecting, pack, totals, until

from edge_contract import broker_url, bundle, messages
from edge_contract.errors import InputFault, MachineFault
from edge_fleet import reports
from edge_fleet.collector import now_ms
from edge_fleet.simulate import access, crowd
from edge_fleet.simulate.crowd import Crowd, Scene, Seen
from edge_fleet.simulate.device import Version, made
from edge_fleet.simulate.drawing import Drawer, drift_of, moved
from edge_fleet.store.sql import SqlStore


def sealed(packed: Packed) -> bundle.Bundle:
    """With its files, as `edge-pack build` writes it."""
    model, stored = bundle.encode_member("model.onnx", b"1.0")
    profile = next(one for one in _manifest(packed).files if one.name == "profile.json")
    members = {model.name: stored, profile.name: packed.stored}
    return bundle.Bundle(_manifest(packed), packed.manifest_bytes, members)


def _manifest(packed: Packed) -> Any:
    from edge_contract import manifest

    return manifest.decode(packed.manifest_bytes)


def scene(url: str, packed: Packed, **other: Any) -> Scene:
    said = {"devices": 20, "window_s": 2.0, "rows": 50, "seed": 3, "connects_per_s": 500.0}
    return Scene(broker_url.parse(url), FLEET, "edge/1", (sealed(packed),), **{**said, **other})


def running(crowd_: Crowd, enough: threading.Event) -> tuple[threading.Thread, list[Seen]]:
    seen: list[Seen] = []

    def body() -> None:
        seen.append(asyncio.run(crowd_.run(enough.is_set)))

    thread = threading.Thread(target=body)
    thread.start()
    return thread, seen


def test_a_collector_takes_them_for_devices(
    any_broker: Any, publisher: Publisher, store: SqlStore, packed: Packed
) -> None:
    publisher.bundle(packed)
    second = pack(np.random.default_rng(5), version="2.0")
    publisher.bundle(second)
    one = scene(any_broker.url, packed, install_s=0.01)
    one = Scene(**{**vars(one), "bundles": (sealed(packed), sealed(second))})
    done = threading.Event()
    with collecting(any_broker.url, store):
        thread, seen = running(Crowd(one, range(20), boot=7), done)
        try:
            until(lambda: totals(store).windows >= 40, "two windows of each")
            found = reports.devices(store, now_ms())
            assert {each.state for each in found} == {"online"}
            assert [each.device for each in found] == [f"sim-{at:06}" for at in range(20)]
            wish = messages.Desired(revision=4, models={"boiler": "2.0"})
            topic = publisher.topics.desired("sim-000003")
            publisher.raw(topic, messages.encode(wish), retain=True)

            def runs() -> set[str]:
                with store.reading() as tx:
                    device = next(d for d in tx.devices() if d.device == "sim-000003")
                told = messages.decode(device.reported, messages.Reported)
                return (
                    {each.active for each in told.models.values()} if told.revision == 4 else set()
                )

            until(lambda: runs() == {"2.0"}, "it reports the version that was wanted")

            def bundles() -> set[str]:
                with store.reading() as tx:
                    return {each.bundle for each in tx.all_detectors()}

            until(lambda: bundles() == {packed.digest, second.digest}, "its windows name it")
        finally:
            done.set()
            thread.join(60)
        assert (seen[0].peak, seen[0].losses, seen[0].installed) == (20, 0, 1)
        kept = seen[0].acknowledged
        until(lambda: totals(store).windows >= kept, "whatever was acknowledged")
        until(
            lambda: {each.state for each in reports.devices(store, now_ms())} == {"offline"},
            "they said goodbye",
        )
    assert totals(store).faults == 0


def test_what_moved_is_what_was_asked_for(packed: Packed, rng: np.random.Generator) -> None:
    """Against values of a normal distribution that really moved: the same counts within chance."""
    monitor = packed.profile.monitors[0]
    shares = moved(monitor, 1.0)
    assert shares.sum() == pytest.approx(1.0)
    values = rng.normal(20.0, 2.0, 400_000) + monitor.std
    from edge_contract import profile

    real = profile.count_numbers(monitor, values) / len(values)
    assert np.abs(shares - real).max() < 0.02
    drawer = Drawer(packed.profile, [drift_of("temperature=+1sigma@50%")])
    masks = np.array([[True], [False]] * 200)
    counts = drawer.counts(500, masks, rng)
    assert (counts[:, : monitor.cells].sum(axis=1) == 500).all()
    drawn = counts[::2, : monitor.cells].sum(axis=0) / (200 * 500)
    assert np.abs(drawn - shares).max() < 0.01
    quiet = counts[1::2, : monitor.cells].sum(axis=0) / (200 * 500)
    assert np.abs(quiet - np.asarray(monitor.counts) / 20_000).max() < 0.01


@pytest.mark.parametrize(
    "text",
    ["", "temperature", "temperature=1@1", "temperature=1sigma@0", "temperature=1sigma@101%"],
)
def test_a_drift_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputFault) as raised:
        drift_of(text)
    assert "sigma@" in raised.value.advice


def test_a_feature_that_cannot_move_is_refused(packed: Packed) -> None:
    for feature, said in (("colour", "no number"), ("nothing", "no feature")):
        with pytest.raises(InputFault, match=said):
            Drawer(packed.profile, [drift_of(f"{feature}=+1sigma@1")])


def test_an_older_wish_changes_nothing_and_a_failed_version_is_not_tried_again() -> None:
    first, second = Version("m", "1", "1" * 64), Version("m", "2", "2" * 64)
    [device] = made(
        [0], prefix="x-", boot=1, stable=first, versions=[first, second], failing=1.0, seed=1
    )
    versions = [first, second]

    def wish(revision: int, word: str) -> bytes:
        return messages.encode(messages.Desired(revision=revision, models={"m": word}))

    assert device.told(wish(2, "candidate"), versions, 0.0, 5.0)
    assert not device.install(4.9)
    assert device.install(5.0)
    told = messages.decode(device.reported(1), messages.Reported).models["m"]
    assert (told.active, told.quarantined) == ("1", ("2",))
    assert not device.told(wish(1, "stable"), versions, 6.0, 0.0)
    assert not device.told(b"{", versions, 6.0, 0.0)
    assert device.told(wish(3, "2"), versions, 6.0, 0.0)
    assert not device.install(99.0), "it is in quarantine"
    assert device.revision == 3


def test_too_few_descriptors_are_said_before_anything_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd.resource, "getrlimit", lambda _which: (256, 1024))
    with pytest.raises(MachineFault, match="10064 open files") as raised:
        crowd.allow_files(10_000)
    assert "--processes" in raised.value.advice


@pytest.mark.parametrize("broker_kind", ["embedded"], indirect=True)
def test_the_command_sums_up_its_processes(any_broker: Any, packed: Packed, tmp_path: Path) -> None:
    made_ = sealed(packed)
    file = tmp_path / "boiler.edgepack"
    file.write_bytes(bundle.write(made_.manifest_bytes, made_.stored))
    command = [sys.executable, "-m", "edge_fleet", "simulate", "--fleet", FLEET, "--broker",
               any_broker.url, "--bundle", str(file), "--devices", "30", "--processes", "2",
               "--window-s", "60", "--seed", "1"]  # fmt: skip
    done = subprocess.run(
        [*command, "--duration-s", "3", "--json"], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert (said["devices"], said["peak"], said["losses"], said["seed"]) == (30, 30, 0, 1)
    wrong = subprocess.run(
        [*command, "--drift", "colour=+1sigma@1"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "no number" in wrong.stderr


def test_each_device_has_its_own_account_where_a_folder_of_passwords_is_named(
    tmp_path: Path, packed: Packed
) -> None:
    one = scene("mqtt://all:same@127.0.0.1", packed)
    assert access.account(one, "sim-000000") == ("all", "same")
    one = replace(one, passwords=tmp_path)
    with pytest.raises(InputFault, match=r"there is no .*sim-000000\.password"):
        access.account(one, "sim-000000")
    (tmp_path / "sim-000000.password").write_text("its own\n")
    assert access.account(one, "sim-000000") == ("sim-000000", "its own")


def test_authorities_that_cannot_be_read_are_named_before_anything_connects(
    tmp_path: Path, packed: Packed
) -> None:
    one = replace(scene("mqtts://127.0.0.1", packed), ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(InputFault, match=r"none\.pem for TLS"):
        Crowd(one, range(2), boot=1)
    assert access.tls_of(replace(one, broker=broker_url.parse("mqtt://127.0.0.1"))) is None
