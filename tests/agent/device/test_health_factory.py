"""The factory's bundle answers when nothing else does, and never in a better one's place."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from odd_bundles import crashing_onnx, with_member

from edge_contract import bundle as bundles
from edge_contract.errors import InputFault
from edge_release import create, sign_bundle
from edge_release.pointers import Place

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


def signed(bundle: bytes, keys: Path) -> bytes:
    """The bundle with the signature of the models key in ``keys``."""
    whole = bundles.read(bundle)
    signature = sign_bundle(whole.manifest_bytes, keys)
    return bundles.write(whole.manifest_bytes, whole.stored, signature)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "factory"
    folder.mkdir()
    return folder


@pytest.fixture
def keys(world: Any) -> Path:
    return world.publisher.repository.folder


@pytest.fixture
def device(world: Any, shelf: Path) -> Any:
    return world.new_device("pi1", update={"factory": str(shelf)})


def damage(folder: Path) -> None:
    """One bit of each file goes bad."""
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_the_first_boot_without_a_network_is_answered_by_the_factory_then_by_what_is_published(
    world: Any, device: Any, shelf: Path, keys: Path, tiny_bundle: Any
) -> None:
    (shelf / "pump.edgepack").write_bytes(signed(tiny_bundle("0.9"), keys))
    world.broker.kill()
    with device.agent() as agent:
        assert agent.predict("pump", ROW).label == "bad"  # as soon as start returns
        model = agent.status().models["pump"]
        assert (model.active, model.factory) == ("", "0.9")
        assert not device.folder.factory.exists()
        world.broker.start()
        world.publisher.publish(tiny_bundle("1.0", seed=8))
        device.wait_at("1.0")
        assert agent.status().models["pump"].factory == ""
        assert agent.predict("pump", ROW)


def test_when_both_slots_go_bad_the_factory_answers_until_the_broker_is_there(
    world: Any, device: Any, shelf: Path, keys: Path, tiny_bundle: Any
) -> None:
    (shelf / "pump.edgepack").write_bytes(signed(tiny_bundle("0.9", seed=9), keys))
    for version, seed in (("1.0", 7), ("2.0", 8)):
        world.publisher.publish(tiny_bundle(version, seed=seed))
        with device.agent():
            device.wait_at(version)
    state = world.broker.retained("#")
    world.broker.kill()
    slots = list(device.folder.slots.iterdir())
    assert len(slots) == 2
    for slot in slots:
        damage(slot)
    with device.agent() as agent:
        assert agent.predict("pump", ROW)
        world.until(lambda: agent.status().models["pump"].factory == "0.9", "the factory's")
        world.broker.start()
        for topic, payload in state.items():
            world.broker.publish(topic, payload, retain=True)
        device.wait_at("2.0")
        assert agent.predict("pump", ROW)
        assert agent.status().models["pump"].factory == ""


def test_what_was_proven_is_not_replaced_by_the_factory(
    world: Any, device: Any, shelf: Path, keys: Path, tiny_bundle: Any
) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    with device.agent():
        device.wait_at("1.0")
    world.broker.kill()
    (shelf / "pump.edgepack").write_bytes(signed(tiny_bundle("9.0", seed=8), keys))
    with device.agent() as agent:
        assert agent.predict("pump", ROW)
        model = agent.status().models["pump"]
        assert (model.active, model.factory) == ("1.0", "")


def spoil(what: str, bundle: Any, keys: Path, tmp_path: Path) -> bytes:
    """A factory bundle that must not answer."""
    good = signed(bundle("0.9"), keys)
    if what == "unsigned":
        return bundle("0.9")
    if what == "foreign":
        create(tmp_path / "others", "home", now=datetime.now(UTC))
        return signed(bundle("0.9"), tmp_path / "others")
    if what == "signature of another":
        whole, other = bundles.read(good), bundles.read(bundle("0.8"))
        return bundles.write(other.manifest_bytes, other.stored, whole.signature)
    if what == "damaged":
        return (
            good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :]
        )
    return good[:2000]


@pytest.mark.parametrize(
    "case",
    [
        ("unsigned", "carries no signature"),
        ("foreign", "is not signed by the models key of a root that this device trusts"),
        ("signature of another", "is about another manifest"),
        ("damaged", "factory bundle"),
        ("cut off", "factory bundle"),
    ],
    ids=lambda case: case[0],
)
def test_a_factory_bundle_that_nobody_vouches_for_does_not_answer_and_it_is_said(
    case: tuple[str, str], world: Any, device: Any, shelf: Path, tiny_bundle: Any
) -> None:
    what, said = case
    keys = world.publisher.repository.folder
    (shelf / "pump.edgepack").write_bytes(spoil(what, tiny_bundle, keys, shelf.parent))
    world.broker.kill()
    with device.agent() as agent:
        world.until(lambda: said in agent.status().last_error, f"the word {said!r}")
        with pytest.raises(Exception, match=r"not installed|has no model"):
            agent.predict("pump", ROW)
        world.broker.start()
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")  # it is in nobody's way


def test_a_factory_bundle_below_the_signed_floor_does_not_answer(
    world: Any, device: Any, shelf: Path, keys: Path, tiny_bundle: Any
) -> None:
    (shelf / "pump.edgepack").write_bytes(signed(tiny_bundle("0.9", seed=9), keys))
    world.publisher.publish(tiny_bundle("1.0"))
    repository = world.publisher.repository
    with repository.locked():
        repository.set_floor("1.0", Place("home", "stable", "pump"), now=world.publisher.now())
    world.publisher.sync()
    with device.agent():
        device.wait_at("1.0")
    world.broker.kill()
    shutil.rmtree(device.folder.slots)
    with device.agent() as agent:
        world.until(
            lambda: "0.9 is below the floor 1.0" in agent.status().last_error, "the floor's word"
        )
        with pytest.raises(Exception, match="not installed"):
            agent.predict("pump", ROW)


@pytest.mark.slow
def test_a_factory_bundle_whose_load_kills_the_agent_is_left_alone_after_three(
    world: Any, device: Any, shelf: Path, keys: Path, tiny_bundle: Any
) -> None:
    crashing = with_member(tiny_bundle("0.9"), "model.onnx", crashing_onnx())
    (shelf / "pump.edgepack").write_bytes(signed(crashing, keys))
    for _ in range(3):
        device.start()
        assert device.process.wait(120) == -11
    device.start()
    world.publisher.publish(tiny_bundle("1.0"))
    device.wait_at("1.0")
    assert "the agent ended 3 times while it loaded this" in device.log.read_text()
    assert device.stop() == 0


def test_only_the_models_role_may_sign_and_only_for_its_own_paths(
    world: Any, keys: Path, tiny_bundle: Any
) -> None:
    """The rollout key, delegated too, vouches for no model."""
    import base64
    import json

    from securesystemslib.dsse import Envelope

    from edge_agent.delivery import sealed
    from edge_release import metadata

    repository = world.publisher.repository
    state = repository.shelf.read()
    root = state.files["1.root.json"]
    # The targets keys signed it, and yet it is not targets.
    (key,) = metadata.keys_of(state.root, "targets")[0]
    alien = metadata.seal(state.root, [repository.ring.signer(key.keyid)])
    whole = bundles.read(signed(tiny_bundle("0.9"), keys))
    sealed.verify(whole, [root])
    document = json.loads(whole.signature)
    for change in (
        {"edgeTargets": base64.b64encode(alien).decode()},
        {"payloadType": "text/plain"},
        {"payload": base64.b64encode(b"{}").decode()},
        {"edgeTargets": base64.b64encode(b"{}").decode()},
        {"edgeTargets": "!"},
        {"signatures": []},
    ):
        other = json.dumps({**document, **change}).encode()
        with pytest.raises(InputFault):
            sealed.verify(bundles.Bundle(whole.manifest, whole.manifest_bytes, {}, other), [root])
    with pytest.raises(InputFault, match="no root"):
        sealed.verify(whole, [])
    assert Envelope.from_dict(document).signatures
