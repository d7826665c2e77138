"""A device that keeps the former version in memory: asked by version, and back at once."""

from __future__ import annotations

from edge_agent.steps import Phase

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
KEEPS = {"keep_former": True}


def loaded(agent) -> list[str]:
    """Versions that can be asked, the one that answers first."""
    return list(agent._running().serving.seat("pump").loaded)


def test_the_former_version_is_kept_through_trial_commit_and_restart(world, tiny_bundle) -> None:
    device = world.device
    device.set(**{"models.pump": KEEPS})
    with device.agent() as agent:
        for seed, version in enumerate(("1.0", "2.0", "3.0")):
            world.publisher.publish(tiny_bundle(version, seed=7 + seed))
            device.wait_at(version)
        world.until(lambda: loaded(agent) == ["3.0", "2.0"], "the former beside, and no other")
        ask = agent._running().serving.predict
        former, live = (ask("pump", ROW, version).probabilities for version in ("2.0", "3.0"))
        assert former != live == agent.predict("pump", ROW).probabilities
    with device.agent() as agent:
        world.until(lambda: loaded(agent) == ["3.0", "2.0"], "the former again after a restart")
    device.set(**{"models.pump": {"keep_former": False}})
    with device.agent() as agent:
        assert loaded(agent) == ["3.0"]


def test_a_trial_that_fails_goes_back_without_a_load(world, tiny_bundle) -> None:
    device = world.device
    device.set(**{"models.pump": KEEPS})
    with device.agent():
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        device.set(trial={"requests": 1000, "seconds": 600.0})
    with device.agent() as agent:
        seat = agent._running().serving.seat("pump")
        former = world.until(lambda: seat.model, "1.0 again")
        world.publisher.publish(tiny_bundle("2.0", seed=8))
        device.wait_at("1.0", Phase.TRIAL)
        world.until(lambda: loaded(agent) == ["2.0", "1.0"], "the proven one beside the new one")
        world.client.want("pi1", 1, pump="1.0")
        device.wait_at("1.0")
        assert seat.model is former
        world.until(lambda: loaded(agent) == ["1.0"], "what failed to leave")
